// Shows /openapi.json. Everything in it is set as text, never as HTML.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const BOUNDS = ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "format", "default"];

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function resolve(api, node) {
  let found = node;
  while (found && found.$ref) {
    const { $ref, ...beside } = found;
    const target = $ref.slice(2).split("/").reduce((inner, part) => inner?.[part], api);
    found = { ...target, ...beside };
  }
  return found ?? {};
}

// A schema in short: its name, its type, or what it may be.
function typeOf(schema) {
  if (schema === false) return "not accepted";
  if (schema === true) return "anything";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? true)}`;
  const values = schema.additionalProperties;
  if (schema.type === "object" && values && typeof values === "object" && values.type) return `map of ${typeOf(values)}`;
  return [].concat(schema.type ?? "anything").join(" | ");
}

function boundsOf(schema) {
  return BOUNDS.filter((name) => schema?.[name] !== undefined).map((name) => `${name} ${JSON.stringify(schema[name])}`);
}

function entry(name, schema, required, description) {
  const item = element("li");
  item.append(element("code", name, required ? "required" : ""), " ");
  const facts = [typeOf(schema), ...(required ? ["required"] : []), ...boundsOf(schema)];
  item.append(element("span", facts.join(", "), "type"));
  const text = description ?? schema?.description;
  if (text) item.append(" ", element("span", text));
  return item;
}

// The properties of a schema; of a named one only its name, which links to it.
function properties(schema) {
  const list = element("ul");
  for (const [name, inner] of Object.entries(schema.properties ?? {})) {
    if (inner !== false) list.append(entry(name, inner, (schema.required ?? []).includes(name)));
  }
  return list;
}

function reference(schema) {
  const names = [...new Set(JSON.stringify(schema ?? {}).match(/#\/components\/schemas\/\w+/g) ?? [])];
  const line = element("p", typeOf(schema ?? {}), "type");
  for (const name of names.map((one) => one.split("/").pop())) {
    const link = element("a", name);
    link.href = `#schema-${name}`;
    line.append(" → ", link);
  }
  return line;
}

function content(parent, api, bodies) {
  for (const [media, { schema }] of Object.entries(bodies ?? {})) {
    parent.append(element("code", media), reference(schema));
  }
}

function responses(api, operation) {
  const list = element("ul");
  for (const [status, given] of Object.entries(operation.responses)) {
    const answer = resolve(api, given);
    const item = element("li");
    item.append(element("code", status), " ", element("span", answer.description));
    const headers = Object.keys(answer.headers ?? {});
    if (headers.length && status < "300") item.append(element("div", `Headers: ${headers.join(", ")}`, "note"));
    if (status < "300") content(item, api, answer.content);
    list.append(item);
  }
  return list;
}

function describe(api, path, method, operation) {
  const details = element("details");
  const summary = element("summary");
  summary.append(element("span", method.toUpperCase(), "method"), element("code", path), " — ", operation.summary ?? "");
  const body = element("div");
  if (operation.security?.length === 0) body.append(element("p", "Needs no API key.", "note"));
  const parameters = (operation.parameters ?? []).map((one) => resolve(api, one));
  if (parameters.length) {
    const list = element("ul");
    for (const one of parameters) list.append(entry(`${one.name} (${one.in})`, one.schema, one.required, one.description));
    body.append(element("h3", "Parameters"), list);
  }
  if (operation.requestBody) {
    body.append(element("h3", "Body"));
    content(body, api, operation.requestBody.content);
  }
  body.append(element("h3", "Answers"), responses(api, operation));
  details.append(summary, body);
  return details;
}

function schemas(api) {
  const section = document.getElementById("schemas");
  section.hidden = false;
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    const details = element("details");
    details.id = `schema-${name}`;
    const body = element("div");
    if (schema.description) body.append(element("p", schema.description));
    body.append(schema.properties ? properties(schema) : reference(schema));
    details.append(element("summary", name), body);
    section.append(details);
  }
}

function show(api) {
  document.getElementById("title").textContent = `${api.info.title} API ${api.info.version}`;
  document.getElementById("about").textContent = api.info.description;
  document.getElementById("access").hidden = true;
  document.getElementById("status").textContent = "";
  const main = document.getElementById("operations");
  main.replaceChildren(element("h2", "Operations"));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((one) => item[one])) main.append(describe(api, path, method, item[method]));
  }
  schemas(api);
  openTarget();
}

// A link to a schema opens it.
function openTarget() {
  const target = location.hash.startsWith("#schema-") && document.getElementById(location.hash.slice(1));
  if (target) {
    target.open = true;
    target.scrollIntoView();
  }
}

async function load(key) {
  const status = document.getElementById("status");
  const answer = await fetch("/openapi.json", key ? { headers: { authorization: `Bearer ${key}` } } : {});
  if (answer.ok) {
    show(await answer.json());
    return;
  }
  const body = await answer.json().catch(() => null);
  document.getElementById("access").hidden = ![401, 403].includes(answer.status);
  status.textContent = body?.error?.message ?? `The server answered ${answer.status}.`;
}

function start(key) {
  load(key).catch((error) => {
    document.getElementById("status").textContent = `/openapi.json cannot be loaded: ${error.message}`;
  });
}

document.getElementById("access").addEventListener("submit", (event) => {
  event.preventDefault();
  start(document.getElementById("key").value);
});
window.addEventListener("hashchange", openTarget);
start("");
