// A picture of a contact sheet, large: its whole column side by side. Arrow keys step, Escape closes.
(() => {
  const dialog = document.getElementById("large");
  const row = dialog.querySelector(".large-row");
  let sheet = null, index = 0;
  const show = () => {
    row.replaceChildren();
    for (const line of sheet.rows) {
      const picture = line.querySelectorAll("img")[index];
      if (!picture) continue;
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = line.querySelector("th").textContent;
      figure.append(picture.cloneNode(), caption);
      row.append(figure);
    }
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
    show();
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || "close" in event.target.dataset) dialog.close();
    else if (event.target.dataset.step) step(Number(event.target.dataset.step));
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
})();
