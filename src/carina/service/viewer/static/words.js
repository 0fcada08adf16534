// Words that more than one page says: a message of the server as a sentence, and that a log-in has ended.

export const LOGGED_OUT = 401;
export const SHUT_OUT = "Whoever is logged in now does not see this run, or it is gone.";
const NOT_SEEN = new Set([403, 404]); // what one may not see is not there

/** Whether a status says that who asks does not see what this page shows. */
export function isShutOut(status) {
  return NOT_SEEN.has(status);
}

/** A message of the server as a sentence: messages begin small, for a command line puts a word before them. Names stay. */
export function sentence(text) {
  return /^[a-z][a-z'-]*,? [^(]/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
}

/** Says in an element that the page is somebody else's than who is logged in now, with a link that opens it anew. */
export function sayOpenAnew(element, words) {
  const link = document.createElement("a");
  link.href = location.href;
  link.textContent = "Open the page anew";
  element.replaceChildren(`${words} `, link);
}

/** Says in an element that nobody, or the wrong one, is logged in, with a link to the log-in that leads back to this page. */
export function sayLoggedOut(element, words) {
  const link = document.createElement("a");
  link.href = `/login?to=${encodeURIComponent(location.pathname + location.search)}`;
  link.textContent = "Log in";
  element.replaceChildren(`${words} `, link);
}
