// Words that more than one page says: a message of the server as a sentence, and that a log-in has ended.

export const LOGGED_OUT = 401;

/** A message of the server as a sentence: messages begin small, for a command line puts a word before them. Names stay. */
export function sentence(text) {
  return /^[a-z][a-z'-]*,? [^(]/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
}

/** Says in an element that nobody is logged in any more, with a link to the log-in that leads back to this page. */
export function sayLoggedOut(element, words) {
  const link = document.createElement("a");
  link.href = `/login?to=${encodeURIComponent(location.pathname + location.search)}`;
  link.textContent = "Log in";
  element.replaceChildren(`${words} `, link);
}
