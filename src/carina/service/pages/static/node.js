// Keeps the changing part of a page true. Without scripts the page is what it was when it was loaded.
const live = document.getElementById("live");
const connection = document.getElementById("connection");

if (live) {
  const source = new EventSource(live.dataset.live);
  let waiting = null;

  function isInUse() {
    return live.contains(document.activeElement) && document.activeElement.tagName === "SELECT";
  }

  /** Finds the element again that has the focus: by its id, a link by where it leads, a summary by what it opens. */
  function findAgain() {
    const at = document.activeElement;
    const { id, href, parentElement } = at;
    if (!live.contains(at)) return () => null;
    if (id) return () => document.getElementById(id);
    if (href) return () => [...live.querySelectorAll("a")].find((one) => one.href === href);
    return () => document.getElementById(parentElement.id)?.querySelector("summary");
  }

  function show(part) {
    const focused = findAgain();
    const opened = [...live.querySelectorAll("details")].map((one) => [one.id, one.open]);
    const ticked = [...live.querySelectorAll("input:checked")].map((one) => one.id);
    const chosen = [...live.querySelectorAll("select[id]")]
      .filter((one) => !one.selectedOptions[0]?.defaultSelected)
      .map((one) => [one.id, one.value]);
    live.innerHTML = part;
    for (const [id, value] of chosen) {
      const choice = document.getElementById(id);
      if (choice) choice.value = value;
    }
    for (const id of ticked) {
      const box = document.getElementById(id);
      if (box) box.checked = true;
    }
    for (const [id, open] of opened) {
      const details = document.getElementById(id);
      if (details) details.open = open;
    }
    focused()?.focus();
  }

  source.onmessage = (event) => {
    connection.textContent = "";
    if (isInUse()) waiting = event.data;
    else show(event.data);
  };
  source.onerror = () => {
    const why = source.readyState === EventSource.CLOSED ? "You are logged out, or the page is gone: reload it." : "The node does not answer.";
    connection.textContent = `${why} This page shows what was last known.`;
  };
  live.addEventListener("focusout", () => {
    if (waiting === null) return;
    setTimeout(() => {
      if (isInUse() || waiting === null) return;
      show(waiting);
      waiting = null;
    });
  });
  addEventListener("pagehide", () => source.close());
}
