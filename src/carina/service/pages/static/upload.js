// Sends files in chunks, each with its digest, and resumes from what the node has: after a failure, and after the page
// was closed, once the same files are chosen again.
const place = document.getElementById("upload");
const said = document.getElementById("upload-said");
const at = document.getElementById("upload-at");
const bar = document.getElementById("upload-progress");
const percent = document.getElementById("upload-percent");
const pause = document.getElementById("upload-pause");
const CHUNK = Number(place.dataset.chunk);
const PATIENCE_S = 30;
const MOST_FAULTS = 8;
const LOGGED_OUT = "access.unknown"; // the node's code of an answer to nobody
const DAMAGED_ZIP = "upload.zip"; // the node's code of an archive that it can't unpack
const MOST_NAMED = 5;
const UNUSABLE = 422; // the files themselves are at fault
let busy = false;
let paused = null;

class Refused extends Error {
  constructor(message, code = "", status = 0) {
    super(message);
    Object.assign(this, { code, status });
  }
}

function sayLoggedOut() {
  const words = "You are no longer logged in. What has come is kept: log in, choose the same files again, and the rest is sent.";
  say(words, `/login?to=${encodeURIComponent(location.pathname + location.search)}`, "Log in");
}

function say(text, link = "", called = "Look at it.") {
  said.textContent = text;
  if (link) addLink(link, called);
}

function addLink(link, called) {
  const anchor = document.createElement("a");
  anchor.href = link;
  anchor.textContent = called;
  said.append(" ", anchor);
}

async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

async function answered(method, path, body, headers) {
  try {
    return await fetch(`/api/v1/uploads${path}`, { method, body, headers: { "x-csrf-token": place.dataset.token, ...headers } });
  } catch {
    return null;
  }
}

async function ask(method, path, body, headers = {}) {
  let faults = 0;
  for (let wait = 1; ; wait = Math.min(2 * wait, PATIENCE_S)) {
    const answer = await answered(method, path, body, headers);
    if (answer?.ok) {
      if (wait > 1) say("The node answers again; the upload resumes.");
      return answer.json();
    }
    const problem = (await answer?.json().catch(() => null)) ?? {};
    const words = problem.detail ?? `the node says ${answer?.status}.`;
    if (answer && answer.status < 500 && answer.status !== 429) throw new Refused(words, problem.code, answer.status);
    if (answer && (faults += 1) === MOST_FAULTS) throw new Refused(`${words} It was tried ${faults} times; choose the same files later.`);
    say(`${answer ? `The node can't do it now: ${words}` : "The node does not answer."} The next try is in ${wait} s.`);
    await new Promise((done) => setTimeout(done, 1000 * wait));
  }
}

function sizeWords(bytes) {
  const [unit, divisor] = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, least]) => bytes >= least) ?? ["B", 1];
  return `${divisor > 1 ? (bytes / divisor).toFixed(1) : bytes} ${unit}`;
}

function show(came, total) {
  const now = Math.floor((100 * came) / total);
  bar.value = came / total;
  percent.textContent = `${now} % of ${sizeWords(total)}`;
  if (now >= show.told + 10) {
    show.told = now - (now % 10);
    say(`${show.told} % are uploaded.`);
  }
}

// The answer to a chunk may be lost, or another page sends the same files: what the node has is what counts.
async function resumed(upload, one, offset, error) {
  if (error.code !== "upload.offset") throw error;
  const state = await ask("GET", `/${upload.id}`);
  const there = state.whole ? one.file.size : (state.received.find((file) => file.name === one.name)?.bytes ?? 0);
  if (there === offset) throw error;
  return there;
}

async function sendFile(upload, one, from, tell) {
  let offset = from;
  while (offset < one.file.size) {
    if (paused) await paused.over;
    const bytes = await one.file.slice(offset, offset + CHUNK).arrayBuffer();
    const digest = btoa(String.fromCharCode(...(await sha256(bytes))));
    const query = new URLSearchParams({ name: one.name, offset });
    const headers = { "content-digest": `sha-256=:${digest}:`, "content-type": "application/octet-stream" };
    const there = await ask("PUT", `/${upload.id}/chunk?${query}`, bytes, headers).then(
      (taken) => taken.bytes,
      (error) => resumed(upload, one, offset, error),
    );
    tell(there - offset);
    offset = there;
  }
}

async function keyOf(files, project) {
  const known = files.map((one) => [one.name, one.file.size, one.file.lastModified]).sort();
  const digest = await sha256(new TextEncoder().encode(JSON.stringify([project, known])));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Takes an upload from the list of unfinished ones, and the list with the last of them. */
function notUnfinished(id) {
  document.querySelector(`[data-upload="${id}"]`)?.remove();
  const list = document.getElementById("upload-unfinished");
  if (!list?.querySelector("[data-upload]")) list?.remove();
}

async function send(files, left) {
  const total = files.reduce((sum, one) => sum + one.file.size, 0);
  if (!total) throw new Refused(`there is nothing in what you chose${left ? " but hidden or empty files" : ""}.`);
  const json = { "content-type": "application/json" };
  const project = document.getElementById("upload-project").value;
  const announced = JSON.stringify({ key: await keyOf(files, project), files: files.length, bytes: total, project });
  const upload = await ask("POST", "", announced, json);
  const there = new Map(upload.received.map((one) => [one.name, one.bytes]));
  let came = upload.whole ? total : upload.received.reduce((sum, one) => sum + one.bytes, 0);
  show.told = Math.floor((10 * came) / total) * 10;
  at.hidden = false;
  say(came ? `Resumed at ${Math.floor((100 * came) / total)} %.` : "The upload has begun.");
  show(came, total);
  for (const one of upload.whole ? [] : files) {
    await sendFile(upload, one, there.get(one.name) ?? 0, (bytes) => show((came += bytes), total));
  }
  say("Everything is uploaded and is being checked.");
  const pipeline = document.getElementById("upload-pipeline").value;
  const job = await ask("POST", `/${upload.id}/finish`, JSON.stringify({ pipeline, project }), json).catch(async (error) => {
    if (error.status !== UNUSABLE) throw error;
    const gone = await answered("POST", `/${upload.id}/discard`, "{}", json); // sent again it is the same
    if (gone?.ok) notUnfinished(upload.id);
    throw error;
  });
  notUnfinished(upload.id);
  say(`Uploaded: it is job ${job.id}.`, `/jobs/${job.id}`);
  if (job.run_before) {
    said.append(" The same scan is here already:");
    addLink(`/jobs/${job.run_before}`, `job ${job.run_before}.`);
  }
}

function isZip(one) {
  return one.name.toLowerCase().endsWith(".zip");
}

/** Why files were not taken; the node names none of them, for a name may tell a patient. */
function whyNot(error, files) {
  if (!(error instanceof Refused)) return `a file can't be read (${error.message}).`;
  const zips = error.code === DAMAGED_ZIP ? files.filter(isZip).map((one) => one.name) : [];
  return zips.length ? `${zips.slice(0, MOST_NAMED).join(", ")}: ${error.message}` : error.message;
}

function isSent({ name, file }) {
  return file.size > 0 && !name.split("/").at(-1).startsWith(".");
}

async function begin(gathered) {
  if (busy) return say("One upload after the other: this one is not finished.");
  busy = true;
  place.dataset.busy = "yes";
  let files = [];
  try {
    const chosen = await gathered;
    files = chosen.filter(isSent);
    const left = chosen.length - files.length;
    await send(files, left);
    if (left) said.append(` ${left} hidden or empty file${left === 1 ? " was" : "s were"} left out.`);
  } catch (error) {
    if (error.code === LOGGED_OUT) return sayLoggedOut();
    say(`Not uploaded: ${whyNot(error, files)}`);
  } finally {
    busy = false;
    delete place.dataset.busy;
    at.hidden = true;
    percent.textContent = "";
    bar.value = 0;
  }
}

function named(file) {
  return { name: file.webkitRelativePath || file.name, file };
}

function fileOf(entry) {
  return new Promise((done, failed) => entry.file((file) => done({ name: entry.fullPath.replace(/^\//, ""), file }), failed));
}

async function below(entry) {
  if (entry.isFile) return [await fileOf(entry)];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(below))).flat();
}

function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return Promise.resolve([...transfer.files].map(named));
  return Promise.all(entries.map(below)).then((found) => found.flat());
}

for (const id of ["upload-files", "upload-folder"]) {
  const input = document.getElementById(id);
  input.addEventListener("change", () => {
    const files = [...input.files].map(named);
    input.value = "";
    if (files.length) begin(Promise.resolve(files));
  });
}

pause.addEventListener("click", () => {
  if (paused) {
    paused.end();
    paused = null;
    say("The upload resumes.");
  } else {
    let end = null;
    const over = new Promise((done) => (end = done));
    paused = { over, end };
    say("The upload is paused.");
  }
  pause.textContent = paused ? "Resume" : "Pause";
});

function hasFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  place.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) place.classList.remove("over");
});
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  place.classList.remove("over");
  begin(dropped(event.dataTransfer));
});
addEventListener("beforeunload", (event) => {
  if (busy) event.preventDefault();
});
