// The page of /docs: it lists what openapi.json says, and sends requests. All
// text goes in as textContent, so nothing of a document or an answer is markup.
"use strict";

const methods = ["get", "head", "post", "put", "patch", "delete"];
let spec;
let tables; // their names

start().catch((err) => { byID("summary").textContent = "The document cannot be shown: " + err.message; });

async function start() {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error("openapi.json answered " + answer.status);
  spec = await answer.json();
  byID("summary").textContent = spec.info.summary;
  const rows = Object.values(spec.components.schemas).filter((s) => s["x-table"] && s.required && !s.$ref);
  tables = rows.map((s) => s["x-table"]);
  const list = operations();
  for (const tag of spec.tags) {
    byID("operations").append(
      element("h2", { textContent: tag.name }),
      element("p", { className: "dim", textContent: tag.description }),
      ...list.filter((o) => o.tags.includes(tag.name)).map(showOperation));
  }
  byID("codes").append(table("Codes", ["Code", "Status", "Meaning"], codes()));
  byID("table-names").append(...tables.map((name) => element("option", { value: name })));
  byID("tables").append(...rows.map(showTable));
  if (!rows.length) byID("tables").append(element("p", { textContent: "No table is served." }));
}

function byID(id) { return document.getElementById(id); }

function element(name, properties, ...children) {
  const e = Object.assign(document.createElement(name), properties);
  e.append(...children);
  return e;
}

// resolve follows a reference within the document.
function resolve(x) {
  if (!x || !x.$ref) return x;
  return x.$ref.slice(2).split("/").reduce((at, part) => at[part.replace(/~1/g, "/").replace(/~0/g, "~")], spec);
}

function operations() {
  const list = [];
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const method of methods.filter((m) => item[m])) {
      const parameters = [...(item.parameters || []), ...(item[method].parameters || [])].map(resolve);
      list.push({ ...item[method], path, method: method.toUpperCase(), parameters });
    }
  }
  return list;
}

function showOperation(o) {
  const details = element("details", { id: o.operationId },
    element("summary", {},
      element("b", { className: "mono", textContent: o.method }), " ",
      element("span", { className: "mono", textContent: o.path }),
      element("span", { className: "dim", textContent: o.summary })));
  // What is inside is made when it is looked at.
  details.addEventListener("toggle", () => details.append(...inside(o)), { once: true });
  return details;
}

function inside(o) {
  const out = [element("p", { className: "text", textContent: o.description })];
  const samples = o["x-codeSamples"] || [];
  if (samples.length) out.push(element("h3", { textContent: "Examples" }));
  for (const s of samples) {
    if (s.label) out.push(element("div", { className: "dim", textContent: s.label }));
    out.push(element("pre", { textContent: s.source.replaceAll("http://127.0.0.1:8080", address("")) }));
  }
  out.push(element("h3", { textContent: "Answers" }), answers(o), element("h3", { textContent: "Try it" }), tryIt(o));
  return out;
}

function table(label, heads, rows) {
  const line = (cell, values) => element("tr", {}, ...values.map((v) => element(cell, { textContent: v })));
  const scroll = element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: label },
    element("table", {},
      element("thead", {}, line("th", heads)),
      element("tbody", {}, ...rows.map((r) => line("td", r)))));
  scroll.querySelectorAll("th").forEach((th) => { th.scope = "col"; });
  return scroll;
}

function answers(o) {
  return table("Answers", ["Status", "Meaning", "Codes"], Object.entries(o.responses).map(([status, ref]) => {
    const response = resolve(ref);
    const problem = response.content && response.content["application/problem+json"];
    return [status, response.description, problem ? problem.schema.properties.code.enum.join(", ") : ""];
  }));
}

// codes reads the table in the description of the schema Code.
function codes() {
  const lines = spec.components.schemas.Code.description.split("\n").filter((line) => line.startsWith("| `"));
  return lines.map((line) => line.replaceAll("`", "").split("|").slice(1, 4).map((cell) => cell.trim()));
}

function showTable(s) {
  const rows = s.required.map((name) => {
    const c = s.properties[name];
    const notes = [];
    if (s["x-key"] && s["x-key"].includes(name)) notes.push("key");
    if (c.readOnly) notes.push("read-only");
    if (c.enum) notes.push("one of " + c.enum.filter((v) => v !== null).join(", "));
    return [name, c["x-type"], c["x-not-null"] ? "no" : "yes", c["x-default"] || "", notes.join("; ")];
  });
  return element("details", {},
    element("summary", { className: "mono", textContent: s["x-table"] }),
    table("Columns of " + s["x-table"], ["Column", "Type", "Nullable", "Default", ""], rows));
}

// field is a labelled control; the label is read out with its explanation.
function field(control, name, description) {
  control.name = name;
  control.classList.add("mono");
  control.autocapitalize = "off";
  control.spellcheck = false;
  return element("label", {}, name, element("small", { className: "dim text", textContent: description }), control);
}

function tryIt(o) {
  const form = element("form", {});
  // A browser does not encode bodies.
  const parameters = o.parameters.filter((p) => p.name !== "Content-Encoding");
  for (const p of parameters) {
    const input = element("input", { required: Boolean(p.required), autocomplete: "off" });
    if (p.in === "path") input.value = p.example || "";
    if (p.name === "table") {
      input.setAttribute("list", "table-names");
      if (!tables.includes(p.example)) input.value = tables[0] || "";
    }
    form.append(field(input, p.name, p.description));
  }
  const content = o.requestBody && o.requestBody.content;
  if (content) {
    const kinds = element("select", {}, ...Object.keys(content).map((kind) => element("option", { textContent: kind })));
    const example = content[kinds.value].example;
    const text = typeof example === "string" ? example : JSON.stringify(example || {});
    form.append(field(kinds, "Content-Type", ""), field(element("textarea", { value: text }), "body", ""));
  }
  const curl = element("pre", {});
  const output = element("div", {});
  form.append(element("button", { textContent: "Send" }), element("h3", { textContent: "As curl" }), curl, output);
  const show = () => { curl.textContent = asCurl(request(o, form, parameters)); };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(request(o, form, parameters), output);
  });
  show();
  return form;
}

// address of a path on the server that this page comes from.
function address(path) { return new URL("." + path, location.href).href.replace(/\/$/, ""); }

// request is what the form says. A key is given as in the path: its commas and
// its percent signs have their meaning already.
function request(o, form, parameters) {
  const r = { method: o.method, headers: [], body: null };
  const query = [];
  let path = o.path;
  for (const p of parameters) {
    const value = form.elements.namedItem(p.name).value;
    if (p.in === "path") {
      const encoded = encodeURIComponent(value);
      path = path.replace(`{${p.name}}`, () => (p.name === "key" ? encoded.replace(/%2C/g, ",").replace(/%25/g, "%") : encoded));
    } else if (value && p.schema.type === "object") { // names of its own: kind=eq.click&views=gt.1
      query.push(new URLSearchParams(value).toString());
    } else if (value && p.in === "query") {
      query.push(`${encodeURIComponent(p.name)}=${encodeURIComponent(value)}`);
    } else if (value) {
      r.headers.push([p.name, value]);
    }
  }
  if (o.requestBody) {
    r.headers.push(["Content-Type", form.elements.namedItem("Content-Type").value]);
    r.body = form.elements.namedItem("body").value;
  }
  r.url = address(path) + (query.length ? "?" + query.join("&") : "");
  return r;
}

function quoted(text) { return "'" + text.replaceAll("'", "'\\''") + "'"; }

function asCurl(r) {
  const words = { GET: "curl -s", HEAD: "curl -sI" };
  const parts = [words[r.method] || `curl -s -X ${r.method}`, quoted(r.url)];
  for (const [name, value] of r.headers) parts.push("-H " + quoted(`${name}: ${value}`));
  if (r.body !== null) parts.push("--data-raw " + quoted(r.body));
  return parts.join(" ");
}

async function send(r, output) {
  const said = element("p", { role: "status" });
  output.replaceChildren(said);
  said.textContent = "Waiting for the answer.";
  const began = performance.now();
  try {
    const answer = await fetch(r.url, { method: r.method, headers: r.headers, body: r.body, cache: "no-store" });
    const text = await answer.text(); // as it is: JSON.parse would round numbers
    const headers = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    said.textContent = `${answer.status} ${answer.statusText}, ${Math.round(performance.now() - began)} ms`;
    output.append(
      element("pre", { className: "dim", textContent: headers }),
      element("pre", { textContent: text.length > 100000 ? text.slice(0, 100000) + "…" : text }));
  } catch (err) {
    said.textContent = "The request could not be sent: " + err.message;
  }
}
