"use strict";
// The gallery. Texts of models and data become text nodes; nothing here makes HTML of a string.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = data.columns;
  const total = columns.prompt.length;
  const PAGE = 24;
  const say = (key, values = {}) =>
    data.words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const word = (group, value) => data.words[`${group}.${value}`] ?? value;
  const WORD = /[\u3400-\u9fff]|[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu;
  const $ = (id) => document.getElementById(id);

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // Tables that are wider than the page say so.
  const noticed = new ResizeObserver((entries) => {
    for (const { target } of entries)
      target.previousElementSibling.hidden = target.scrollWidth <= target.clientWidth + 1;
  });
  for (const table of document.querySelectorAll(".scroll")) noticed.observe(table);

  // Which words are in the other text too, in the same order (longest common subsequence).
  function inCommon(words, others) {
    const width = others.length + 1;
    const table = new Uint16Array((words.length + 1) * width);
    for (let i = words.length - 1; i >= 0; i--)
      for (let j = others.length - 1; j >= 0; j--)
        table[i * width + j] = words[i] === others[j]
          ? table[(i + 1) * width + j + 1] + 1
          : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    const kept = new Array(words.length).fill(false);
    for (let i = 0, j = 0; i < words.length && j < others.length; )
      if (words[i] === others[j]) { kept[i] = true; i++; j++; }
      else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i++;
      else j++;
    return kept;
  }

  function marked(text, other) {
    const paragraph = element("p");
    if (!text) { paragraph.append(say("no_answer")); return paragraph; }
    const found = [...text.matchAll(WORD)];
    const lower = (match) => match[0].toLowerCase();
    const kept = inCommon(found.map(lower), [...(other || "").matchAll(WORD)].map(lower));
    let at = 0;
    for (let i = 0; i < found.length; ) {
      let end = i + 1;
      while (end < found.length && kept[end] === kept[i]) end++;
      const stop = found[end - 1].index + found[end - 1][0].length;
      const part = text.slice(found[i].index, stop);
      paragraph.append(text.slice(at, found[i].index));
      paragraph.append(kept[i] ? part : element("mark", { class: "off" }, part));
      at = stop;
      i = end;
    }
    paragraph.append(text.slice(at));
    return paragraph;
  }

  function frames(row) {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    const whole = { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", "aria-hidden": "true" };
    for (const [name, value] of Object.entries(whole)) svg.setAttribute(name, value);
    for (const stage of ["before", "after"])
      for (const [x0, y0, x1, y1] of columns[`boxes_${stage}`][row]) {
        const rect = document.createElementNS(space, "rect");
        const place = { class: stage, x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
        for (const [name, value] of Object.entries(place)) rect.setAttribute(name, value);
        svg.append(rect);
      }
    return svg;
  }

  // All pictures of a question, in the order of its marks.
  function picture(row) {
    const shown = columns.image[row].map((name) => {
      if (!(name in data.pictures))
        return element("span", { class: "absent" }, say("absent", { name }));
      const image = element("img", { alt: say("picture", { name }), src: data.pictures[name] });
      return element("span", { class: "picture" }, image, frames(row));
    });
    return element("span", { class: "pictures" }, ...shown);
  }
  const names = (row) => columns.image[row].join(say("separator"));

  function said(stage, title, heading, paragraph) {
    return element("div", { class: `said ${stage}` }, element(heading, {}, title), paragraph);
  }

  function answers(row, heading) {
    const [reference, before, after] = ["reference", "before", "after"].map((n) => columns[n][row]);
    const right = reference === null ? say("no_reference")
      : columns.exact_after[row] ? say("same") : reference;
    return [
      said("before", say("before"), heading, marked(before, reference ?? after)),
      said("after", say("after"), heading, marked(after, reference ?? before)),
      said("reference", say("reference"), heading, element("p", {}, right)),
    ];
  }

  const SIGNS = { improved: "▲ ", worse: "▼ ", unchanged: "● ", changed: "◆ " };
  function tags(row) {
    const outcome = columns.verdict[row];
    const made = element("p", { class: "tags" });
    made.append(element("span", { class: `badge ${outcome}` }, SIGNS[outcome] + word("outcome", outcome)));
    if (columns.exact_after[row])
      made.append(element("span", { class: "badge good" }, say("right")));
    if (columns.image_in_training[row])
      made.append(element("span", { class: "badge warn" }, say("seen")));
    made.append(element("span", {}, word("family", columns.family[row])));
    if (data.experiments.length > 1) made.append(element("span", {}, columns.experiment[row]));
    return made;
  }

  function card(row, place) {
    const label = say("open", { names: names(row), prompt: columns.prompt[row] });
    const open = element("button", { type: "button", class: "open", "aria-label": label }, picture(row));
    open.addEventListener("click", () => show(place));
    const title = element("h3", {}, columns.prompt[row]);
    const text = element("div", { class: "text" }, title, tags(row), ...answers(row, "h4"));
    return element("li", { class: "card" }, open, text);
  }

  // Filtering and sorting work on row numbers; texts are put in lower case once.
  const haystack = columns.prompt.map((_, row) =>
    ["prompt", "reference", "before", "after"].map((name) => columns[name][row] ?? "")
      .concat(columns.image[row]).join("\n").toLowerCase());
  const gain = (row) => (columns.chrf_after[row] ?? 0) - (columns.chrf_before[row] ?? 0);
  const likeness = (row) => columns.chrf_after[row] ?? 101;
  const orders = {
    order: (a, b) => a - b,
    gain: (a, b) => gain(b) - gain(a) || a - b,
    loss: (a, b) => gain(a) - gain(b) || a - b,
    worst: (a, b) => likeness(a) - likeness(b) || a - b,
    longest: (a, b) => columns.after[b].length - columns.after[a].length || a - b,
  };
  const selects = ["verdict", "family", "split", "experiment"];
  let chosen = [];
  let shown = 0;

  function choose() {
    const wanted = selects.map((name) => [columns[name], $(name).value]).filter((pair) => pair[1]);
    const text = $("search").value.trim().toLowerCase();
    chosen = [];
    for (let row = 0; row < total; row++)
      if (wanted.every(([column, value]) => column[row] === value)
          && (!text || haystack[row].includes(text))) chosen.push(row);
    chosen.sort(orders[$("sort").value]);
    shown = 0;
    $("gallery").replaceChildren();
    more();
  }

  function more() {
    const first = shown;
    shown = Math.min(chosen.length, shown + PAGE);
    $("gallery").append(...chosen.slice(first, shown).map((row, n) => card(row, first + n)));
    $("more").hidden = shown === chosen.length;
    const right = chosen.filter((row) => columns.exact_after[row]).length;
    $("count").textContent = chosen.length
      ? say("count", { chosen: chosen.length, total, right, shown })
      : say("nothing_fits");
    return first;
  }

  let opened = 0;
  function show(place) {
    opened = place;
    const row = chosen[place];
    $("viewer-title").textContent = columns.prompt[row];
    const likeness = columns.chrf_after[row] === null ? ""
      : say("likeness", { before: columns.chrf_before[row], after: columns.chrf_after[row] });
    const note = element("p", { class: "note" }, `${likeness}${names(row)}`);
    // What was said with another picture, where that was asked.
    const others = ["blind_after", "shuffled_after"]
      .filter((name) => columns[name] && columns[name][row] !== null)
      .map((name) => said("other", say(name), "h3", marked(columns[name][row], columns.reference[row])));
    const text = element("div", {}, tags(row), ...answers(row, "h3"), ...others, note);
    $("viewer-body").replaceChildren(element("div", { class: "viewer" }, picture(row), text));
    $("previous").disabled = place === 0;
    $("next").disabled = place === chosen.length - 1;
    if (!$("viewer").open) $("viewer").showModal();
  }
  function turn(by) {
    if (chosen[opened + by] !== undefined) show(opened + by);
  }

  const GROUPS = { verdict: "outcome", family: "family", split: "split", experiment: "" };
  for (const name of selects)
    for (const value of [...new Set(columns[name])])
      $(name).append(element("option", { value }, word(GROUPS[name], value)));
  for (const name of [...selects, "sort"]) $(name).addEventListener("change", choose);
  $("search").addEventListener("input", choose);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("more").addEventListener("click", () => {
    const next = $("gallery").children[more()];
    if (next) next.querySelector("button").focus();
  });
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("viewer").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight") turn(1);
  });
  choose();
})();
