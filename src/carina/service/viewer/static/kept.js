// What a browser keeps for a page, in `localStorage` or `sessionStorage`: it may be full, or keep nothing for anybody.

/** What is kept under a key, or null. */
export function recall(storage, key) {
  try {
    return window[storage].getItem(key);
  } catch {
    return null;
  }
}

/** Keeps a text under a key, or nothing where there is none; gives false where it can't be kept. */
export function keep(storage, key, text) {
  try {
    if (text) window[storage].setItem(key, text);
    else window[storage].removeItem(key);
    return true;
  } catch {
    return !text;
  }
}
