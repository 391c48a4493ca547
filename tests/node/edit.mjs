// One call of the official Node SDK, whose picture it prints as base64. Where the gateway is: DARKROOM_BASE_URL; the
// fields of the call, as JSON: DARKROOM_FIELDS; its picture, as base64: DARKROOM_PICTURE; the SDK's own settings, as JSON:
// DARKROOM_OPTIONS.
import OpenAI from "openai";

const { DARKROOM_BASE_URL: baseURL, DARKROOM_FIELDS, DARKROOM_PICTURE, DARKROOM_OPTIONS } = process.env;
const client = new OpenAI({ baseURL, apiKey: "none", ...JSON.parse(DARKROOM_OPTIONS) });
const image = new File([Buffer.from(DARKROOM_PICTURE, "base64")], "in.png", { type: "image/png" });
const response = await client.images.edit({ ...JSON.parse(DARKROOM_FIELDS), image });
process.stdout.write(response.data[0].b64_json);
