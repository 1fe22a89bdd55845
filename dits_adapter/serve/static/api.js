// The API page, laid out from /api/openapi.json: requests, their parameters and their answers.

import { ask } from "./ask.js";

const schema = await ask("api/openapi.json").catch((problem) => {
  document.querySelector("#about").textContent = problem.message;
  throw problem;
});
const description = Object.assign(document.createElement("a"), { href: "api/openapi.json", textContent: "OpenAPI" });
document.querySelector("#about").append(`${schema.info.summary} Version ${schema.info.version}. `, description);

function element(tag, content, ...children) {
  const made = document.createElement(tag);
  made.append(content, ...children);
  return made;
}

const resolve = (part) => (part.$ref ? part.$ref.slice(2).split("/").reduce((at, name) => at[name], schema) : part);

function type(part) {
  if (part.$ref) return part.$ref.split("/").pop();
  if (part.anyOf) return part.anyOf.map(type).join(" or ");
  if (part.prefixItems) return `[${part.prefixItems.map(type).join(", ")}]`;
  if (part.type === "array") return `${type(part.items)}[]`;
  return part.type ?? "anything";
}

function bounds(part) {
  const { minimum, maximum } = [part, ...(part.anyOf ?? [])].find((type) => "minimum" in type || "maximum" in type) ?? {};
  return [minimum, maximum].some((bound) => bound !== undefined) ? `, ${minimum ?? "…"} to ${maximum ?? "…"}` : "";
}

function table(head, rows) {
  const cells = (tag, row) => element("tr", "", ...row.map((cell) => element(tag, cell)));
  return element("table", "", element("thead", cells("th", head)), element("tbody", "", ...rows.map((row) => cells("td", row))));
}

function parameters(operation) {
  return table(["Parameter", "Type", "Meaning"], operation.parameters.map((parameter) => [
    element("code", parameter.name),
    type(parameter.schema) + bounds(parameter.schema) + (parameter.required ? ", required" : ""),
    parameter.description ?? "",
  ]));
}

function fields(name) {
  const { description, properties } = schema.components.schemas[name];
  const rows = Object.entries(properties);
  return element("section", element("h2", name), element("p", description), table(["Field", "Type"], rows.map(([field, part]) => [element("code", field), type(part)])));
}

const sections = [];  // an operation each, and then the objects that they take and give
const answers = new Set();
for (const [path, methods] of Object.entries(schema.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const [media, body] = Object.entries(operation.responses[200].content)[0];
    const section = element("section", element("h2", element("code", `${method.toUpperCase()} ${path}`)), element("p", operation.description ?? ""));
    if (operation.parameters) section.append(parameters(operation));
    for (const [takes, { schema: sent }] of Object.entries(operation.requestBody?.content ?? {})) {
      section.append(element("p", sent.$ref ? `Takes ${type(sent)}, as ${takes}.` : `Takes ${takes}.`));
      if (sent.$ref) answers.add(type(sent));
    }
    section.append(element("p", `Answers with ${body.schema?.$ref ? type(body.schema) : media}.`));
    if (body.schema?.$ref) answers.add(type(body.schema));
    sections.push(section);
  }
}
for (const name of answers) {  // and their parts; the set grows while it is walked
  sections.push(fields(name));
  for (const reference of JSON.stringify(resolve({ $ref: `#/components/schemas/${name}` })).matchAll(/schemas\/(\w+)/g)) answers.add(reference[1]);
}
document.querySelector("main").replaceChildren(...sections);
