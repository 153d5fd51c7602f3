// Tables sort by a column: first click best guess (numbers from large, words from a), second the other way, third as it was.
(() => {
  const value = (row, column) => {
    const cell = row.cells[column], text = cell.textContent.trim();
    if (cell.tagName === "TH" || cell.classList.contains("text")) return text; // a run may be called 2024
    const number = parseFloat(text.replaceAll("\u2212", "-").replaceAll(",", ""));
    return Number.isNaN(number) ? text : number;
  };
  const empty = (cell) => cell === "" || cell === "–";
  const compare = (a, b, sign) => {
    if (empty(a) || empty(b)) return empty(a) - empty(b); // what is missing stays below either way
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0], original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      if (!button.textContent) button.textContent = "name";
      head.append(button);
      const isText = original.every((row) => typeof value(row, column) === "string");
      const first = isText ? "ascending" : "descending";
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = now === null ? first : now === first ? (isText ? "descending" : "ascending") : null;
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next) head.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        const sorted = [...original];
        if (next) sorted.sort((a, b) => compare(value(a, column), value(b, column), sign));
        body.append(...sorted);
      });
    });
  }
})();

// A picture of a contact sheet, large: its whole column side by side. Arrow keys step, Escape closes, focus stays inside until then.
(() => {
  const dialog = document.getElementById("large");
  const row = dialog.querySelector(".large-row");
  let sheet = null, index = 0, opener = null;
  const show = () => {
    row.replaceChildren();
    for (const line of sheet.rows) {
      const button = line.querySelectorAll("button")[index];
      if (!button) continue;
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const name = line.querySelector("th").textContent;
      caption.textContent = button.dataset.note ? `${name}: ${button.dataset.note}` : name;
      figure.append(button.querySelector("img").cloneNode(), caption);
      row.append(figure);
    }
    dialog.setAttribute("aria-label", `Picture ${index + 1}, enlarged`);
  };
  const step = (by) => {
    const count = sheet.rows[0].querySelectorAll("img").length;
    index = (index + by + count) % count;
    show();
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".sheet button");
    if (!button) return;
    sheet = button.closest("table");
    index = Number(button.dataset.picture);
    opener = button;
    show();
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || "close" in event.target.dataset) dialog.close();
    else if (event.target.dataset.step) step(Number(event.target.dataset.step));
  });
  dialog.addEventListener("close", () => opener?.focus());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    if (event.key !== "Tab") return;
    const buttons = [...dialog.querySelectorAll("button")]; // Tab would wander off into the browser's own bars
    const next = buttons.indexOf(document.activeElement) + (event.shiftKey ? -1 : 1);
    buttons[(next + buttons.length) % buttons.length].focus();
    event.preventDefault();
  });
})();

// The map: the dot next to the pointer, or the one that the arrow keys walked to, shows its picture.
(() => {
  const REACH = 40; // the drawing's units
  for (const map of document.querySelectorAll(".dots")) {
    const svg = map.querySelector("svg"), thumb = map.querySelector(".thumb"), words = thumb.querySelector("span");
    const pen = thumb.querySelector("canvas").getContext("2d");
    const sprite = document.getElementById(`sprite-${map.dataset.sprite}`);
    const columns = Number(map.dataset.columns), side = Number(map.dataset.side);
    const dots = [...svg.querySelectorAll("circle")].map((circle) => ({
      circle, x: Number(circle.getAttribute("cx")), y: Number(circle.getAttribute("cy")),
      place: Number(circle.dataset.place), name: circle.parentNode.dataset.name,
    }));
    const shown = () => dots.filter((dot) => !dot.circle.parentNode.classList.contains("faint"));
    let now = null;
    const show = (dot) => {
      now?.circle.classList.remove("now");
      now = dot;
      thumb.hidden = !dot;
      if (!dot) return;
      dot.circle.classList.add("now");
      pen.imageSmoothingEnabled = false;
      pen.drawImage(sprite, (dot.place % columns) * side, Math.floor(dot.place / columns) * side, side, side, 0, 0, 96, 96);
      words.textContent = dot.name || `picture ${dot.place + 1}`;
      const scale = svg.clientWidth / svg.viewBox.baseVal.width, x = dot.x * scale, y = dot.y * scale;
      const width = thumb.offsetWidth, height = thumb.offsetHeight;
      thumb.style.left = `${Math.max(0, Math.min(x + 12, map.clientWidth - width))}px`;
      thumb.style.top = `${y > height + 12 ? y - height - 12 : y + 12}px`;
    };
    const nearest = (x, y, among) => {
      let best = null, least = Infinity;
      for (const dot of among) {
        const distance = Math.hypot(dot.x - x, dot.y - y);
        if (distance < least) [best, least] = [dot, distance];
      }
      return [best, least];
    };
    const point = (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const [dot, distance] = nearest(place.x, place.y, shown());
      show(distance < REACH ? dot : null);
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    map.addEventListener("pointerleave", () => show(null));
    map.addEventListener("blur", () => show(null));
    map.addEventListener("focus", () => { if (!now && map.matches(":focus-visible")) show(nearest(500, 350, shown())[0]); });
    map.addEventListener("keydown", (event) => {
      const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
      if (event.key === "Escape") show(null);
      if (!dx && !dy) return;
      event.preventDefault();
      // the nearest dot of those that lie more that way than across
      const from = now ?? { x: 500, y: 350 };
      const ahead = shown().filter((dot) => {
        const along = (dot.x - from.x) * dx + (dot.y - from.y) * dy;
        const across = Math.abs((dot.x - from.x) * dy) + Math.abs((dot.y - from.y) * dx);
        return dot !== now && along > 0 && along >= across;
      });
      if (ahead.length) show(nearest(from.x, from.y, ahead)[0]);
    });
    const buttons = [...map.parentNode.querySelectorAll("[data-class]")];
    buttons.forEach((button, index) => button.addEventListener("click", () => {
      const alone = button.getAttribute("aria-pressed") !== "true";
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(alone && other === button)));
      svg.querySelectorAll("g").forEach((group, at) => group.classList.toggle("faint", alone && at !== index));
      show(null);
    }));
  }
})();
