// Keeps the changing part of a page true. Without scripts the page is what it was when it was loaded.
const live = document.getElementById("live");
const connection = document.getElementById("connection");
const USABLE = "a[href], button, summary, select, input:not([type=hidden])";
const LOGGED_OUT = 401;
const NOT_SEEN = new Set([403, 404]); // what one may not see is not there
const CLICK_AFTER_MS = 100; // a finger's click comes after it was lifted

/** What tells an element from its siblings; empty where nothing does. (A form's `id` may be a field of that name.) */
function keyOf(node) {
  const named = ["id", "aria-labelledby", "href"].find((name) => node.getAttribute?.(name));
  return named ? node.getAttribute(named) : "";
}

/** The next of the siblings from `at` on, up to one with a key, that `made` may be put into. */
function alike(at, made) {
  let one = at;
  while (one && !keyOf(one) && one.nodeName !== made.nodeName) one = one.nextSibling;
  return one && !keyOf(one) ? one : null;
}

/** Takes away what stands from `at` on, up to `end` or what has a key; gives what stands there then. */
function clear(at, end) {
  let one = at;
  while (one && one !== end && !keyOf(one)) {
    const next = one.nextSibling;
    one.remove();
    one = next;
  }
  return one;
}

function mendAttributes(old, made) {
  const ofReader = old.nodeName === "DETAILS" ? "open" : "";
  for (const { name } of [...old.attributes]) if (name !== ofReader && !made.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of made.attributes) {
    if (name !== ofReader && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

function mendChildren(old, made) {
  const coming = new Set([...made.children].map(keyOf));
  for (const one of [...old.children]) if (keyOf(one) && !coming.has(keyOf(one))) one.remove();
  const kept = new Map([...old.children].filter(keyOf).map((one) => [keyOf(one), one]));
  let at = old.firstChild;
  for (const next of [...made.childNodes]) {
    const found = keyOf(next) ? kept.get(keyOf(next)) : alike(at, next);
    if (!found || found.nodeName !== next.nodeName) {
      old.insertBefore(next, at);
      continue;
    }
    kept.delete(keyOf(next));
    at = clear(at, found);
    if (at === found) at = at.nextSibling;
    else old.insertBefore(found, at);
    mend(found, next);
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}

/**
 * Makes `old` say what `made` says. What is the same in both stays where it is: whoever stands on it, presses it, has
 * opened, ticked or chosen in it notices nothing.
 */
function mend(old, made) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== made.data) old.data = made.data;
    return;
  }
  if (old.isEqualNode(made)) return;
  const isChosen = old.nodeName === "SELECT" && !old.selectedOptions[0]?.defaultSelected;
  const choice = isChosen ? old.value : made.value;
  mendAttributes(old, made);
  mendChildren(old, made);
  if (old.nodeName === "SELECT") old.value = choice;
}

/** Puts the focus back: on what had it, on what is the same elsewhere, else on what is near to where that was. */
function standAgain(focused, above) {
  if (document.activeElement === focused) return;
  const near = above.filter((one) => live.contains(one));
  const links = near.flatMap((one) => [...one.querySelectorAll("a")]);
  const again = [
    live.contains(focused) && focused,
    focused.id && document.getElementById(focused.id),
    focused.href && links.find((one) => one.href === focused.href),
    ...near.map((one) => one.querySelector(USABLE)),
  ];
  again.find(Boolean)?.focus();
}

function show(part) {
  const focused = document.activeElement;
  const above = [];
  for (let one = focused; live.contains(one) && one !== live; one = one.parentElement) above.push(one.parentElement);
  const made = live.cloneNode(false);
  made.innerHTML = part;
  mend(live, made);
  if (above.length) standAgain(focused, above);
}

/** This page as it is for whoever is logged in now; null where nothing answers. */
function askAgain() {
  return fetch(location.href, { cache: "no-store" }).catch(() => null);
}

/** Whether an answer says nothing of who may see what: there is none, or the node has no time or no database. */
function isAway(answer) {
  return !answer || answer.status === 429 || answer.status >= 500;
}

/** Whether an upload is under way, which ends with its page. */
function isBusy() {
  return Boolean(document.querySelector("[data-busy]"));
}

if (live) {
  let source = null;
  let isOver = false;
  let waiting = null;
  let isPressed = false;
  let lifted = null;

  /** A page that nobody sees is told nothing: a browser has few connections to a server, all its tabs together. */
  function listen() {
    source?.close();
    if (isOver || document.visibilityState !== "visible") return;
    source = new EventSource(live.dataset.live);
    source.onmessage = (event) => {
      connection.textContent = "";
      if (isPressed) waiting = event.data;
      else show(event.data);
    };
    source.addEventListener("ended", end);
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) end();
      else say("The node does not answer.");
    };
  }
  /** Says why the page does not change any more, with a link to where it goes on. */
  function say(why, link) {
    connection.textContent = `${why} This page shows what was last known. `;
    if (link) connection.append(Object.assign(document.createElement("a"), link));
  }
  /** Who is logged in, by a page's header. */
  function whoOn(page) {
    return page.querySelector(".who a")?.textContent.split(",")[0] ?? "";
  }
  async function end() {
    isOver = true;
    source.close();
    const answer = await askAgain();
    const back = `/login?to=${encodeURIComponent(location.pathname + location.search)}`;
    if (answer?.status === LOGGED_OUT) say("You are logged out.", { href: back, textContent: "Log in" });
    else if (answer?.ok) {
      const [now, before] = [new DOMParser().parseFromString(await answer.text(), "text/html"), document].map(whoOn);
      const words = now === before ? "You may do other things than before." : `${now} is logged in now, and this page is that of ${before}.`;
      say(words, { href: location.href, textContent: "Reload" });
    }
    else if (isAway(answer)) say("The node does not answer.", { href: location.href, textContent: "Reload" });
    else if (isBusy()) say("Whoever is logged in does not see this page, or it is gone.", { href: "/", textContent: "Worklist" });
    else location.reload();
  }
  /**
   * Whoever comes back to a page that has ended, after a log-in in another window, is shown it as it is for them: where
   * they don't see it, the page that says so, and nothing more of what was seen by who was here before.
   */
  async function comeBack() {
    if (!isOver || document.visibilityState !== "visible" || isBusy()) return;
    const answer = await askAgain();
    if (answer?.status !== LOGGED_OUT && !isAway(answer)) location.reload();
  }
  addEventListener("focus", comeBack);
  document.addEventListener("visibilitychange", comeBack);
  document.addEventListener("visibilitychange", listen);
  listen();

  // Nothing moves between the press of a pointer and its click. A list of choices that opens doesn't say when it closes.
  live.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest("select")) return;
    clearTimeout(lifted);
    lifted = null;
    isPressed = true;
  });
  function settle() {
    lifted = null;
    isPressed = false;
    if (waiting !== null) show(waiting);
    waiting = null;
  }
  function lift() {
    if (isPressed) lifted ??= setTimeout(settle, CLICK_AFTER_MS);
  }
  for (const kind of ["pointerup", "pointercancel", "blur"]) addEventListener(kind, lift);
  addEventListener("pointermove", (event) => {
    if (!event.buttons) lift(); // it was lifted where this page didn't hear of it
  });
  addEventListener("pagehide", () => source?.close());
}

// ---- Who presses a button with a key, and comes back to the page, stands where that was: on the button, or near to it.
const PRESSED_KEY = "carina pressed";

function recallPressed() {
  try {
    return JSON.parse(sessionStorage.getItem(PRESSED_KEY));
  } catch {
    return null; // this browser keeps nothing
  }
}

function keepPressed(pressed) {
  try {
    sessionStorage.setItem(PRESSED_KEY, JSON.stringify(pressed));
  } catch {
    // as above: then the page begins at its top
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("form[method=post] button");
  if (!button || event.detail) return; // by a pointer
  if (button.closest("[data-sure]")) return; // it is pressed again, where one stands before it was asked about
  const ids = [];
  for (let one = button; one && one !== live && one.nodeName !== "MAIN"; one = one.parentElement) {
    if (one.getAttribute("id")) ids.push(one.getAttribute("id"));
  }
  keepPressed({ path: location.pathname, ids });
});

const pressed = recallPressed();
if (pressed?.path === location.pathname) {
  keepPressed(null);
  const near = pressed.ids.map((id) => document.getElementById(id)).find(Boolean);
  const usable = near?.matches(USABLE) ? near : near?.querySelector("button") ?? near?.querySelector(USABLE);
  usable?.focus();
}

// ---- An answer to a form has the address of the page that it leads back to: reloaded, it is not sent once more.
const answered = document.querySelector("[data-answered]");
if (answered) history.replaceState(null, "", answered.dataset.answered);

// ---- A page without a live part whose log-in ended is as good as new after a log-in in another window.
function tokenOf(page) {
  return page.querySelector(".who [name=token]")?.value;
}

function isTypedIn() {
  const usual = (one) => ([...one.options].find((option) => option.defaultSelected) ?? one.options[0])?.value ?? "";
  return [...document.querySelectorAll("main input:not([type=hidden])")].some((one) => one.value !== one.defaultValue)
    || [...document.querySelectorAll("main select")].some((one) => one.value !== usual(one));
}

async function renew() {
  if (live || !tokenOf(document) || document.visibilityState !== "visible") return;
  const answer = await askAgain();
  if (NOT_SEEN.has(answer?.status) && !document.getElementById("said")) location.reload(); // it was somebody else's
  if (!answer?.ok || isTypedIn()) return;
  const token = tokenOf(new DOMParser().parseFromString(await answer.text(), "text/html"));
  if (token && token !== tokenOf(document)) location.reload();
}
addEventListener("focus", renew);
document.addEventListener("visibilitychange", renew);
