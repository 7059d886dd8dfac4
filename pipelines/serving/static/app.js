"use strict";

const byId = (id) => document.getElementById(id);
const percent = (share) => `${(Math.floor(share * 1000) / 10).toFixed(1)} %`;
const base = "v1/models/";
let model = null;
let stream = null;
let asked = 0;

// A list of places of colour, dark to bright, as the map inferno has them.
const INFERNO = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function colour(heat) {
  const place = Math.min(Math.max(heat, 0), 1) * (INFERNO.length - 1);
  const low = Math.min(Math.floor(place), INFERNO.length - 2);
  return INFERNO[low].map((one, i) => Math.round(one + (INFERNO[low + 1][i] - one) * (place - low)));
}

function complain(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
  if (text) byId("result").hidden = true;
}

function fill(list, texts) {
  list.replaceChildren(...texts.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

async function json(address, options) {
  const response = await fetch(address, options);
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(content.error || `the server answered ${response.status}`);
  return content;
}

async function describe() {
  try {
    const { metadata, model_spec: spec } = await json("model");
    model = { ...metadata, name: spec.name };
  } catch (error) {
    byId("summary").textContent = `${error.message}; trying again in a moment.`;
    setTimeout(describe, 2000);
    return;
  }
  const classes = model.class_names;
  byId("summary").textContent = `It tells ${classes.slice(0, 12).join(", ")}${classes.length > 12 ? " and others" : ""} from each other.`;
  byId("switch").hidden = !model.explains;
  byId("no-heat").hidden = model.explains;
  await showCard();
}

async function showCard() {
  const card = await json("model-card");
  const [low, high] = model.accuracy_interval;
  const facts = {
    "Test accuracy": percent(model.accuracy),
    "95 % interval": `${percent(low)} to ${percent(high)}`,
    "Test photos": model.test_examples,
    Architecture: model.architecture,
    Weights: Number(model.parameters).toLocaleString("en"),
  };
  byId("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => {
    const pair = document.createElement("div");
    const term = document.createElement("dt");
    const shown = document.createElement("dd");
    term.textContent = name;
    shown.textContent = value;
    pair.append(term, shown);
    return pair;
  }));
  byId("use").textContent = card.intended_use || "";
  fill(byId("not-for"), card.not_for || []);
  fill(byId("limits"), card.limits || []);
  const data = card.data || {};
  const authors = Object.keys(data.credits || {});
  const named = authors.slice(0, 30).join(", ");
  const others = authors.length > 30 ? `, and ${authors.length - 30} more` : "";
  byId("credits").textContent = `${data.licence || "The licence of the photos is not on record."}${named ? ` Photos by ${named}${others}.` : ""}`;
}

async function ask(photo, name) {
  const number = ++asked;
  complain("");
  if (!model) return complain("The model is not ready yet; try again in a moment.");
  if (photo.size > model.max_body_bytes) {
    return complain(`${name}: ${(photo.size / 2 ** 20).toFixed(0)} MiB is too large; at most ${model.max_body_bytes / 2 ** 20} MiB are taken.`);
  }
  const began = performance.now();
  const verb = model.explains ? "explain" : "predict";
  try {
    const { predictions } = await json(`${base}${model.name}:${verb}`, {
      method: "POST",
      headers: { "Content-Type": "image/any" },
      body: photo,
    });
    // A later photo may have been answered first.
    if (number === asked) await show(predictions[0], photo, performance.now() - began);
  } catch (error) {
    if (number === asked) complain(`${name}: ${error.message}`);
  }
}

async function show(answer, photo, took) {
  const pairs = answer.class_names.map((name, i) => [name, answer.probabilities[i]]);
  pairs.sort((a, b) => b[1] - a[1]);
  byId("answer").textContent = `${answer.label}, ${percent(pairs[0][1])}`;
  byId("bars").replaceChildren(...pairs.slice(0, 10).map(bar));
  byId("took").textContent = `Answered in ${took.toFixed(0)} ms.`;
  await drawPhoto(photo, answer.label);
  drawHeat(answer.heat_map);
  byId("result").hidden = false;
}

function bar([name, share]) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  const cell = document.createElement("td");
  cell.className = "bar";
  const track = document.createElement("div");
  track.className = "track";
  const inner = document.createElement("div");
  inner.className = "fill";
  inner.style.width = `${100 * share}%`;
  track.append(inner);
  cell.append(track);
  const figure = document.createElement("td");
  figure.textContent = percent(share);
  row.append(head, cell, figure);
  return row;
}

// What the model sees: the photo, upright, stretched to a square or its middle one.
async function drawPhoto(photo, label) {
  const canvas = byId("photo");
  canvas.setAttribute("aria-label", `Your photo, taken for ${label}`);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  let image;
  try {
    image = await createImageBitmap(photo);
  } catch {
    return; // The server reads more formats than some browsers do.
  }
  const side = Math.min(image.width, image.height);
  const [width, height] = model.resize === "stretch" ? [image.width, image.height] : [side, side];
  context.drawImage(image, (image.width - width) / 2, (image.height - height) / 2, width, height, 0, 0, canvas.width, canvas.height);
  image.close();
}

function drawHeat(map) {
  const canvas = byId("heat");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!map) return;
  const small = new ImageData(map[0].length, map.length);
  map.flat().forEach((heat, i) => small.data.set([...colour(heat), 255 * Math.min(1, heat * 1.6)], 4 * i));
  const source = document.createElement("canvas");
  source.width = small.width;
  source.height = small.height;
  source.getContext("2d").putImageData(small, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
}

function take(files) {
  const [file] = files;
  if (file) ask(file, file.name || "the photo");
}

async function openCamera() {
  complain("");
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return complain(`The camera cannot be used: ${error.message || "it needs https, or localhost"}.`);
  }
  byId("video").srcObject = stream;
  await byId("video").play();
  byId("viewfinder").hidden = false;
  byId("shoot").focus();
}

function closeCamera() {
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("viewfinder").hidden = true;
}

function shoot() {
  const video = byId("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((photo) => ask(photo, "the photo"), "image/jpeg", 0.92);
  closeCamera();
}

const drop = byId("drop");
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
}
document.addEventListener("drop", (event) => take(event.dataTransfer.files));
document.addEventListener("paste", (event) => take(event.clipboardData.files));
byId("choose").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
byId("camera").addEventListener("click", openCamera);
byId("cancel").addEventListener("click", closeCamera);
byId("shoot").addEventListener("click", shoot);
byId("show-heat").addEventListener("change", (event) => { byId("heat").hidden = !event.target.checked; });
describe();
