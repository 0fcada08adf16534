// The mask in the browser, and its strokes on their way to the server, which has each on the disk before it answers.
// What is not there yet is kept in this browser, so that a closed tab loses nothing either.

import { keep, recall } from "./kept.js";
import { LOGGED_OUT, isShutOut, sentence } from "./words.js";

const RETRY_MS = 1000;
const LONGEST_RETRY_MS = 30000; // of what the server refuses, each time twice as long
const LOGGED_OUT_RETRY_MS = 4000; // a log-in in another tab is seen soon
const STROKE_MS = 5000; // a server that takes a request and dies, or stands still, must not hold a stroke for long
const FORBIDDEN = 403;
const OVERTAKEN = "corrections.overtaken";
const SERIES_GONE = "corrections.series-gone"; // nothing makes what waits welcome: who painted it chooses
const ANOTHER_READER = "corrections.another-reader";
const UNREAD = "the mask could not be read again, and is asked for until it comes";
const SILENT = "the server does not answer; kept here and sent again";

/** Places in a (z, y, x) array as runs: start, length, start, length. The places rise. */
export function runsOf(places) {
  const runs = [];
  for (const place of places) {
    const last = runs.length - 1;
    if (last > 0 && runs[last - 1] + runs[last] === place) runs[last] += 1;
    else runs.push(place, 1);
  }
  return runs;
}

/** The marked voxels: 0 and 1, flat. */
export class MaskCopy {
  constructor([z, y, x]) {
    this.marks = new Uint8Array(z * y * x);
    this.voxels = 0;
  }

  /** Forgets everything but these runs. */
  reset(runs) {
    this.marks.fill(0);
    this.voxels = 0;
    this.set(runs, 1);
  }

  /** Sets runs to 0 or 1. */
  set(runs, value) {
    for (let one = 0; one < runs.length; one += 2) {
      for (let place = runs[one]; place < runs[one] + runs[one + 1]; place += 1) this.put(place, value);
    }
  }

  /** Sets one voxel. */
  put(place, value) {
    this.voxels += value - this.marks[place];
    this.marks[place] = value;
  }
}

/**
 * Sends strokes one after the other. `onChange` is called when anything of this changed that a page shows. `owner` is
 * who is logged in, empty where nobody has to be: what one person painted waits for that person alone. `underway` gives
 * the stroke that is being painted, `{ places, value }`, or null.
 *
 * Whatever the server is asked meanwhile, strokes are taken: they lie over what it answers, and are sent after it.
 */
export class Saver {
  #last = Promise.resolve(); // of what is asked in turn
  #wake = () => {};

  constructor({ url, sha256, mask, reader, owner, underway, onChange }) {
    Object.assign(this, { url, sha256, mask, reader, owner, underway, onChange });
    this.key = owner ? `carina strokes ${url} of ${owner}` : `carina strokes ${url}`;
    this.queue = [];
    this.revision = 0;
    this.savedAt = "";
    this.trouble = "";
    this.canUndo = false;
    this.canRedo = false;
    this.undoes = ""; // whose stroke Undo takes back
    this.redoes = "";
    this.undoable = []; // all who have a stroke that can be taken back
    this.redoable = [];
    this.open = []; // by whom the mask differs from the one that was finished
    this.painters = []; // all whose strokes are in it
    this.stamp = ""; // of the strokes and corrections that are known here
    this.isBusy = true; // until the mask is there, and while a deed is being done
    this.reads = 0; // times that the mask is being read again
    this.isRead = false;
    this.isUnfinished = false; // what is saved is not what was finished last
    this.isOvertaken = false;
    this.overtakenBy = ""; // what the server says of that
    this.isLoggedOut = false; // strokes are kept here, and sent once somebody is logged in again
    this.isShutOut = false; // who is logged in now does not see this run; strokes are kept as well
    this.ofAnother = ""; // that somebody else is logged in now than the owner of this page, in a sentence; so are they
    this.isSending = false;
    this.isKept = true; // what waits is kept in this browser too
  }

  /** Reads the mask, however long the server takes to come back, and sends what an earlier tab had not. */
  async begin() {
    let refusals = 0;
    for (;;) {
      const trouble = await this.#read().then(() => null, (error) => error);
      if (!trouble) break;
      refusals = trouble.cause ? refusals + 1 : 1; // a server that is down is soon back
      this.trouble = trouble.message;
      this.onChange();
      await this.#pause(refusals);
    }
    this.trouble = "";
    const kept = JSON.parse(recall("localStorage", this.key) ?? "{}");
    if (kept.queue?.length && kept.sha256 !== this.sha256) {
      this.trouble = `${kept.queue.length} strokes of an earlier visit were of another mask and are not used.`;
    } else this.queue = kept.queue ?? [];
    this.#paintWaiting();
    this.isBusy = false;
    this.#changed();
    this.#send();
  }

  /** A stroke of brush or eraser that the mask already shows. */
  add(tool, runs) {
    this.queue.push({ id: crypto.randomUUID(), reader: this.reader(), tool, runs });
    this.#changed();
    this.#send();
  }

  /** Why nothing can be asked or decided now, in a sentence; empty where it can. */
  get waitsFor() {
    if (this.ofAnother) return this.ofAnother;
    if (!this.isRead) return "The mask is not read yet: wait for it.";
    if (this.isOvertaken) return "This mask was changed elsewhere: choose first what becomes of your strokes.";
    if (this.queue.length) return "Strokes are not saved yet: wait for them.";
    if (this.reads) return "The mask is being read again: wait for it.";
    return this.isBusy ? "The server is at work: wait for it." : "";
  }

  /**
   * What only the server can do: undo, redo, fill, grow. Gives why it was not asked; empty where it was. Where somebody
   * else painted meanwhile it is asked once more of the mask as it is by then, unless it is about a stroke of theirs.
   */
  async ask(tool, more = {}) {
    const why = this.waitsFor;
    if (why) return why;
    this.trouble = "";
    const isOfTheirs = ["undo", "redo"].includes(tool) && !more.is_own;
    const asked = { id: crypto.randomUUID(), reader: this.reader(), tool, ...more };
    const answer = await this.#busy(async () => {
      const told = await this.#asked(asked);
      const isReadAgain = told.code === OVERTAKEN && !isOfTheirs && (await this.#read().then(() => true, () => false));
      return isReadAgain ? this.#asked(asked) : told;
    });
    if (answer.code === OVERTAKEN) await this.#overtaken(answer.detail);
    else if (answer.code) this.trouble = this.isRefused ? "" : answer.detail;
    this.onChange();
    return "";
  }

  async #asked(deed) {
    const told = await this.#answered("strokes", { ...deed, revision: this.revision });
    if (told.code) return told;
    this.mask.set(told.change.runs, told.change.value);
    this.#paintWaiting();
    await this.#took(told);
    return told;
  }

  /** Accepts, rejects or finishes; gives the server's sentence and whether it was done. */
  async decide(decision, reason = "") {
    const why = this.waitsFor;
    if (why) return { said: why, isDone: false };
    this.trouble = ""; // of what was asked before
    const asked = { revision: this.revision, reader: this.reader(), decision, reason };
    const answer = await this.#busy(() => this.#answered("decision", asked));
    if (answer.code === OVERTAKEN) await this.#overtaken("");
    this.onChange();
    return { said: answer.said ?? answer.detail, isDone: !answer.code };
  }

  async #busy(deed) {
    this.isBusy = true;
    this.onChange();
    const done = await this.#inTurn(deed);
    this.isBusy = false;
    return done;
  }

  /** One after the other: what the server says of the mask is taken in the order in which it says it. */
  #inTurn(deed) {
    const done = this.#last.then(deed);
    this.#last = done.catch(() => {});
    return done;
  }

  /**
   * Takes over what somebody else painted or finished meanwhile, where nothing of one's own is on its way. Gives what
   * changes with each decision about a mask of the run; empty where it is not known.
   */
  async watch() {
    const isAsked = this.isIdle || this.isOvertaken || this.isRefused; // what others decided is shown beside the choice
    if (!isAsked) return "";
    const answer = await fetch(`${this.url}/standing.json`).catch(() => null);
    if (answer) this.noteLogIn(answer);
    if (!answer?.ok) return "";
    const { stamp, decided, reader } = await answer.json();
    this.#noteReader(reader);
    if (this.ofAnother) return ""; // what they would be shown is not for the owner
    if (stamp !== this.stamp && this.isIdle) await this.#takeNew(stamp);
    return decided;
  }

  /** Notes by an answer whether somebody who sees this is logged in still, or again. */
  noteLogIn({ status }) {
    const before = [this.isLoggedOut, this.isShutOut];
    this.#noteAnswer(status);
    if (before[0] === this.isLoggedOut && before[1] === this.isShutOut) return;
    this.onChange();
    this.hurry();
  }

  /** Notes who is logged in: nothing is done for them on the page of somebody else. */
  #noteReader(reader) {
    const before = this.ofAnother;
    const words = `This page is that of ${this.owner}, and ${reader} is logged in now: log in as ${this.owner} again, or open the page anew to go on as ${reader}.`;
    this.ofAnother = this.owner && reader && reader !== this.owner ? words : "";
    if (this.ofAnother === before) return;
    this.onChange();
    if (!this.ofAnother) this.hurry();
  }

  #noteAnswer(status) {
    this.isLoggedOut = status === LOGGED_OUT;
    this.isShutOut = isShutOut(status);
  }

  /** Whether nothing can be asked until somebody else is logged in. */
  get isRefused() {
    return this.isLoggedOut || this.isShutOut || Boolean(this.ofAnother);
  }

  async #takeNew(stamp) {
    const isRead = await this.refresh().then(() => true, () => false);
    if (!isRead) return;
    this.stamp = stamp; // a torn end of the strokes' file is not asked for again
    if (this.trouble !== UNREAD) return;
    this.trouble = "";
    this.onChange();
  }

  get isIdle() {
    return !this.waitsFor && !this.underway();
  }

  /** Sends a finished correction's object out; gives the server's sentence and whether it was done. */
  async sendOut(number) {
    if (this.ofAnother) return { said: this.ofAnother, isDone: false };
    const answer = await this.#answered("send", { number, reader: this.owner });
    return { said: answer.said ?? answer.detail, isDone: !answer.code };
  }

  /** The choice of who painted while others did: what waits is added to the mask as it is now, or dropped. */
  async takeOver({ isKeeping }) {
    const choose = () => {
      if (!isKeeping) this.queue = [];
      this.isOvertaken = false;
      this.trouble = "";
    };
    await this.refresh(choose).catch((error) => {
      this.trouble = error.message;
      this.onChange();
    });
  }

  /** Reads the mask again. What waits, and what is painted meanwhile, lies over it and is sent after. */
  async refresh(onRead = () => {}) {
    this.reads += 1;
    try {
      await this.#inTurn(() => this.#read(onRead));
    } finally {
      this.reads -= 1;
      this.#changed();
      this.#send();
    }
  }

  /** Where no stroke waits there is nothing to choose: the mask is shown as it is now. */
  async #overtaken(why) {
    await this.refresh().catch(() => {});
    this.trouble = why;
  }

  #paintWaiting() {
    for (const { tool, runs } of this.queue) this.mask.set(runs, tool === "eraser" ? 0 : 1);
    const { places = [], value } = this.underway() ?? {};
    for (const place of places) this.mask.put(place, value);
  }

  async #read(onRead = () => {}) {
    const answer = await fetch(`${this.url}/mask.json`).catch(() => null);
    if (!answer) throw new Error("the mask could not be read: the server does not answer");
    this.#noteAnswer(answer.status);
    if (!answer.ok) throw new Error(`the mask could not be read (${answer.status})`, { cause: answer.status });
    const stored = await answer.json();
    onRead();
    this.mask.reset(stored.change.runs);
    this.#paintWaiting();
    this.#keepState(stored);
  }

  async #send() {
    if (this.isSending) return;
    this.isSending = true;
    let refusals = 0;
    while (this.queue.length && !this.isOvertaken) {
      refusals = (await this.#inTurn(() => this.#sendFirst())) ? 0 : refusals + 1;
      this.#changed();
      if (refusals) await this.#pause(refusals);
    }
    this.isSending = false;
  }

  /** Sends the stroke that waits longest; gives whether there is nothing against the next. */
  async #sendFirst() {
    if (!this.queue.length || this.isOvertaken) return true;
    const answer = await this.#answered("strokes", { ...this.queue[0], revision: this.revision }, STROKE_MS);
    if ([OVERTAKEN, SERIES_GONE].includes(answer.code)) {
      this.isOvertaken = true;
      this.overtakenBy = answer.detail;
    } else if (answer.code) {
      this.trouble = answer.detail;
      return false;
    } else {
      this.queue.shift();
      this.trouble = "";
      await this.#took(answer);
    }
    return true;
  }

  /** Lets what was refused wait, longer each time: nothing but a log-in, or somebody's deed, makes it welcome. */
  #pause(refusals) {
    const longest = this.isLoggedOut ? LOGGED_OUT_RETRY_MS : LONGEST_RETRY_MS;
    return new Promise((done) => {
      this.#wake = done;
      setTimeout(done, Math.min(RETRY_MS * 2 ** (refusals - 1), longest));
    });
  }

  /** What was refused is asked again now. */
  hurry() {
    this.#wake();
  }

  /** Takes an answer's state; where nothing waits, the mask must have as many voxels here as there. */
  async #took(stored) {
    this.#keepState(stored);
    if (!this.queue.length && !this.underway() && stored.voxels !== this.mask.voxels) {
      await this.#read().catch(() => Object.assign(this, { trouble: UNREAD, stamp: "" })); // so that it is watched for
    }
  }

  #keepState(stored) {
    this.revision = stored.revision;
    this.canUndo = stored.can_undo;
    this.canRedo = stored.can_redo;
    this.undoes = stored.undoes;
    this.redoes = stored.redoes;
    this.undoable = stored.undoable;
    this.redoable = stored.redoable;
    this.open = stored.open;
    this.painters = stored.painters;
    this.stamp = stored.stamp;
    this.isUnfinished = stored.is_unfinished;
    this.isRead = true;
    this.savedAt = stored.at?.slice(11, 19) ?? ""; // by the server's clock, as all times of the page
  }

  /** Asks until the server answers: with a problem's `code` and `detail`, or with what was asked for. What was
   * not answered in time is asked again: the server knows a stroke by its id, and stores none twice. */
  async #answered(what, asked, longest_ms = 0) {
    for (;;) {
      try {
        const answer = await fetch(`${this.url}/${what}`, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify(asked),
          signal: longest_ms ? AbortSignal.timeout(longest_ms) : undefined,
        });
        if (answer.status !== FORBIDDEN) this.#noteAnswer(answer.status); // a deed alone may be refused
        if (this.isLoggedOut) return { code: "logged-out", detail: "you are no longer logged in: log in, then do it again." };
        const told = await answer.json();
        if (told.code === ANOTHER_READER) this.ofAnother = sentence(told.detail);
        else if (answer.ok) this.ofAnother = "";
        return answer.ok ? told : { detail: `the server answers ${answer.status}`, ...told, code: told.code ?? "unknown" };
      } catch {
        this.trouble = SILENT;
        this.onChange();
        await pause();
      }
    }
  }

  #changed() {
    const waiting = this.queue.length ? JSON.stringify({ sha256: this.sha256, queue: this.queue }) : "";
    this.isKept = keep("localStorage", this.key, waiting);
    this.onChange();
  }
}

function pause() {
  return new Promise((done) => setTimeout(done, RETRY_MS));
}

/** Resolves once this tab alone has a name among the tabs of this browser; `onWait` is called where another has it. */
export function alone(name, onWait) {
  if (!navigator.locks) return Promise.resolve();
  return new Promise((resolve) => {
    const keep = () => {
      resolve();
      return new Promise(() => {});
    };
    navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      if (lock) return keep();
      onWait();
      navigator.locks.request(name, keep);
      return null;
    });
  });
}
