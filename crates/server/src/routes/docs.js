/** The page at /docs: lists the operations of /openapi.json and sends what one writes. Needs nothing but the browser. */
"use strict";

/** Makes an element with text and children; text never becomes markup. */
function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

/** The headers that say who asks. */
function credentials(path) {
  const key = document.getElementById("key").value;
  const token = document.getElementById("token").value;
  if (path.startsWith("/api/")) return key ? { "X-API-Key": key } : {};
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** What stands in a request: fields for the path and the query, and a body. */
function form(path, method, operation) {
  const fields = (operation.parameters ?? []).filter((parameter) => parameter.in !== "header");
  const inputs = fields.map((parameter) => {
    const input = element("input");
    input.value = parameter.example ?? "";
    return { parameter, input, label: element("label", `${parameter.name} (${parameter.in}) `, input) };
  });
  const json = operation.requestBody?.content["application/json"];
  const body = json && element("textarea");
  if (body) body.value = JSON.stringify(json.example ?? {}, null, 2);
  const answer = element("pre");
  answer.hidden = true;
  const send = element("button", "Send");
  send.onclick = async () => {
    answer.hidden = false;
    answer.textContent = "…";
    let address = path;
    const query = new URLSearchParams();
    for (const { parameter, input } of inputs) {
      if (parameter.in === "path") address = address.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value) query.set(parameter.name, input.value);
    }
    if (query.size > 0) address += `?${query}`;
    const headers = credentials(path);
    if (body) headers["Content-Type"] = "application/json";
    try {
      const response = await fetch(address, { method: method.toUpperCase(), headers, body: body?.value });
      const text = await response.text();
      answer.textContent = `${response.status} ${response.statusText}\n${text}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  };
  return [...inputs.map(({ label }) => label), ...(body ? [body] : []), send, answer];
}

/** Whether its answer ends, so that this page can show it. */
function canBeTried(path) {
  return !path.startsWith("/connection/") && path !== "/events" && path !== "/emulation";
}

async function show() {
  const main = document.getElementById("operations");
  const response = await fetch("/openapi.json");
  const description = await response.json();
  main.textContent = "";
  for (const tag of description.tags) {
    main.append(element("h2", tag.name), element("p", tag.description));
    for (const [path, methods] of Object.entries(description.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (!operation.tags.includes(tag.name)) continue;
        const name = element("span", method);
        name.className = "method";
        const summary = element("summary", "", name, element("code", path), ` ${operation.summary}`);
        const row = element("details", "", summary);
        if (operation.description) row.append(element("p", operation.description));
        if (canBeTried(path)) row.append(...form(path, method, operation));
        main.append(row);
      }
    }
  }
}

show().catch((error) => {
  document.getElementById("operations").textContent = `The description cannot be read: ${error}`;
});
