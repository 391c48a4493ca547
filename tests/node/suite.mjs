// The official Node SDK as a client of a running gateway. Which SDK: DARKROOM_SDK (a package of this folder). Where the
// gateway is: DARKROOM_BASE_URL. What is sent: the photograph DARKROOM_PHOTO, 600 x 400.
import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";

const sdk = await import(process.env.DARKROOM_SDK);
const { default: OpenAI, toFile } = sdk;
const baseURL = process.env.DARKROOM_BASE_URL;
const photo = process.env.DARKROOM_PHOTO;
const bytes = fs.readFileSync(photo);
const client = new OpenAI({ baseURL, apiKey: "none" });

const file = new File([bytes], "coffee.png", { type: "image/png" });
const edit = (fields, options) =>
  client.images.edit({ model: "lanczos-bp", image: file, prompt: "", ...fields }, options);
const decode = (item) => Buffer.from(item.b64_json, "base64");
const pngSize = (data) => {
  assert.equal(data.subarray(1, 4).toString("latin1"), "PNG");
  return [data.readUInt32BE(16), data.readUInt32BE(20)];
};
const kind = (data) => {
  const head = data.subarray(0, 12).toString("latin1");
  if (head.startsWith("\x89PNG")) return "png";
  if (head.startsWith("\xff\xd8\xff")) return "jpeg";
  if (head.startsWith("GIF8")) return "gif";
  if (head.startsWith("RIFF") && head.endsWith("WEBP")) return "webp";
  if (head.slice(4) === "ftypavif") return "avif";
  return head;
};

const encodings = {
  "toFile with a type": () => toFile(bytes, "coffee.png", { type: "image/png" }),
  "toFile without a type": () => toFile(bytes, "coffee.png"),
  "toFile with a wrong type": () => toFile(bytes, "coffee.jpg", { type: "image/jpeg" }),
  "toFile without a name": () => toFile(bytes),
  "toFile of a stream": () => toFile(fs.createReadStream(photo)),
  "toFile of a response": async () => toFile(await fetch(`data:image/png;base64,${bytes.toString("base64")}`)),
  File: () => new File([bytes], "coffee.png", { type: "image/png" }),
  "File with an odd name": () => new File([bytes], 'a "cup" of café.png'),
  "an open file, chunked": () => fs.createReadStream(photo),
  "array of one": () => [new File([bytes], "coffee.png", { type: "image/png" })],
  "array of one open file": () => [fs.createReadStream(photo)],
};

for (const [name, encoding] of Object.entries(encodings)) {
  test(`a picture as ${name} is read as the picture that it is`, async () => {
    const response = await edit({ image: await encoding(), size: "300x200", response_format: "b64_json" });
    assert.deepEqual(pngSize(decode(response.data[0])), [300, 200]);
  });
}

for (const format of ["png", "jpeg", "webp", "gif", "avif"]) {
  test(`${format} arrives as ${format}`, async () => {
    const response = await edit({ output_format: format, size: "120x80" });
    assert.equal(kind(decode(response.data[0])), format);
    assert.equal(response.size, "120x80");
  });
}

for (const n of [1, 2, 3, 4]) {
  test(`n=${n} is as many pictures`, async () => {
    const response = await edit({ n, size: "60x40" });
    assert.equal(response.data.length, n);
    for (const item of response.data) assert.deepEqual(pngSize(decode(item)), [60, 40]);
    assert.equal(new Set(response.data.map((item) => item.url)).size, n);
  });
}

for (const [asked, wanted] of [
  [{ response_format: "url" }, ["url"]],
  [{ response_format: "b64_json" }, ["b64_json"]],
  [{}, ["b64_json", "url"]],
  [{ model: "gpt-image-1" }, ["b64_json"]],
]) {
  test(`${JSON.stringify(asked)} brings ${wanted}`, async () => {
    const response = await edit({ size: "60x40", ...asked });
    assert.deepEqual(Object.keys(response.data[0]).sort(), wanted);
  });
}

test("an address opens, and has the same bytes as the base64", async () => {
  const response = await edit({ size: "60x40", output_format: "webp" });
  const got = await fetch(response.data[0].url);
  assert.equal(got.status, 200);
  assert.equal(got.headers.get("content-type"), "image/webp");
  assert.equal(got.headers.get("x-content-type-options"), "nosniff");
  assert.deepEqual(Buffer.from(await got.arrayBuffer()), decode(response.data[0]));
});

test("fields that OpenAI does not have are read with their types", async () => {
  const response = await edit({
    scale_factor: 1.5,
    sharpen: 2,
    allow_degraded: true,
    list: [1, 2],
    one: ["z"],
    object: { a: 1, b: { c: true } },
    response_format: "b64_json",
  });
  assert.deepEqual(pngSize(decode(response.data[0])), [900, 600]);
});

test("nested fields reach the one provider that they are for", async () => {
  // `scale` is what the provider's own field for scale_factor is called: that it is refused shows that it arrived.
  await assert.rejects(edit({ provider_options: { local: { scale: 3 } } }), { status: 400, code: "parameter_conflict" });
});

test("the answer says what was done", async () => {
  const response = await edit({ model: "clarity-upscaler", prompt: "a cup", size: "60x40" });
  assert.equal(response.metadata.executed_model, "lanczos-bp");
  assert.equal(response.metadata.provider, "local");
  assert.match(response.metadata.warnings[0], /adds no detail/);
  assert.match(response.id, /^img_/);
});

test("the request's id and the headers are there", async () => {
  const call = edit({ model: "clarity-upscaler", size: "60x40" });
  const { data, response, request_id } = await call.withResponse();
  assert.match(request_id, /^req_/);
  assert.equal(data._request_id, request_id);
  assert.equal(response.headers.get("x-request-id"), request_id);
  assert.equal(response.headers.get("content-type"), "application/json");
  assert.equal(response.headers.get("x-darkroom-provider"), "local");
  assert.equal(response.headers.get("x-darkroom-degraded"), "true");
  assert.ok(Number(response.headers.get("openai-processing-ms")) > 0);
});

for (const n of [1, 3]) {
  test(`a stream has ${n} events, and then its end`, async () => {
    const stream = await edit({ n, size: "60x40", stream: true });
    const events = [];
    for await (const event of stream) events.push(event);
    assert.deepEqual(events.map((event) => event.type), Array(n).fill("image_edit.completed"));
    for (const event of events) assert.deepEqual(pngSize(decode(event)), [60, 40]);
  });
}

test("a stream of an open file works as well", async () => {
  const stream = await edit({ image: fs.createReadStream(photo), size: "60x40", stream: true });
  const events = [];
  for await (const event of stream) events.push(event.size);
  assert.deepEqual(events, ["60x40"]);
});

const refusals = {
  "no picture": [{ image: new File(["no"], "a.png", { type: "image/png" }) }, "invalid_image_file", "image"],
  "an empty picture": [{ image: new File([], "a.png") }, "invalid_image_file", "image"],
  "half a picture": [{ image: new File([bytes.subarray(0, 9000)], "a.png") }, "invalid_image_file", "image"],
  "two pictures": [{ image: [file, file] }, "too_many_images", "image"],
  "too many": [{ n: 11 }, "integer_above_max_value", "n"],
  "a word for a number": [{ n: "many" }, "invalid_type", "n"],
  "no size": [{ size: "huge" }, "invalid_value", "size"],
  "no format": [{ output_format: "svg" }, "invalid_value", "output_format"],
  "a factor out of range": [{ scale_factor: 99 }, "decimal_above_max_value", "scale_factor"],
  "a mask": [{ mask: file }, "unknown_parameter", "mask"],
  "a refused field": [{ lora_links: "http://example.com" }, "parameter_refused", "lora_links"],
};

for (const [name, [fields, code, param]] of Object.entries(refusals)) {
  for (const stream of [false, true]) {
    test(`${name} is a BadRequestError${stream ? " before a stream begins" : ""}`, async () => {
      await assert.rejects(edit({ ...fields, ...(stream ? { stream } : {}) }), (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError, String(error));
        assert.deepEqual([error.status, error.code, error.param], [400, code, param]);
        assert.deepEqual(Object.keys(error.error).sort(), ["code", "message", "param", "type"]);
        assert.match(error.message, /^400 \S.{18,}[.?]$/);
        assert.match(error.requestID, /^req_/);
        return true;
      });
    });
  }
}

test("an unknown model is a NotFoundError with a suggestion", async () => {
  await assert.rejects(edit({ model: "clarity-upscalr" }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.deepEqual([error.code, error.param], ["model_not_found", "model"]);
    assert.match(error.message, /Did you mean 'clarity-upscaler'\?/);
    return true;
  });
});

test("an address that is not served is a NotFoundError", async () => {
  await assert.rejects(client.images.generate({ prompt: "a cat" }), { status: 404, code: "unknown_url" });
});

test("a wrong method is an APIError", async () => {
  await assert.rejects(client.get("/images/edits"), { status: 405, code: "method_not_allowed" });
});

test("a wrong type is an APIError", async () => {
  const call = client.post("/images/edits", { body: "image", headers: { "content-type": "text/plain" } });
  await assert.rejects(call, { status: 415, code: "unsupported_media_type" });
});

test("a page in a browser is a PermissionDeniedError", async () => {
  await assert.rejects(edit({}, { headers: { Origin: "https://evil.example" } }), (error) => {
    assert.ok(error instanceof OpenAI.PermissionDeniedError);
    assert.equal(error.code, "loopback_only");
    return true;
  });
});

test("models are listed, and read one by one", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(["clarity-upscaler", "lanczos-bp", "dall-e-2"].every((name) => names.includes(name)), names.join());
  assert.equal((await client.models.retrieve("lanczos-bp")).parameters.scale_factor.max, 16);
  await assert.rejects(client.models.retrieve("google/up scale@4x:v1"), { status: 404, code: "model_not_found" });
});

test("twenty calls at once, and each gets its own picture", async () => {
  const sizes = Array.from({ length: 20 }, (_, i) => [60 + 3 * i, 90 - 2 * i]);
  const answers = await Promise.all(
    sizes.map(([width, height], i) => {
      const image = i % 2 ? fs.createReadStream(photo) : file;
      return edit({ image, size: `${width}x${height}`, prompt: String(i), response_format: "b64_json" });
    }),
  );
  assert.deepEqual(answers.map((answer) => pngSize(decode(answer.data[0]))), sizes);
});

test("a call that is given up does no harm", async () => {
  const controller = new AbortController();
  const image = fs.createReadStream(photo).once("end", () => controller.abort());
  await assert.rejects(edit({ image, size: "600x400" }, { signal: controller.signal }), OpenAI.APIUserAbortError);
  assert.equal((await edit({ size: "60x40" })).size, "60x40");
});
