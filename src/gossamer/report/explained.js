// Which runs' maps stand side by side: those that are ticked. The table's filter shortens the list of them.
document.querySelectorAll("form.beside").forEach((form) => {
  const most = Number(form.dataset.most);
  const boxes = [...form.querySelectorAll("input")];
  const table = form.closest("section").querySelector(".looks");
  const cells = [...table.querySelectorAll("[data-column]")];
  const show = () => {
    const ticked = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    cells.forEach((cell) => { cell.hidden = !ticked.has(cell.dataset.column); });
    table.dataset.columns = ticked.size;
    boxes.forEach((box) => { box.disabled = !box.checked && ticked.size >= most; });
    form.querySelector("summary").textContent = `${ticked.size} of ${boxes.length} runs side by side`;
  };
  const list = () => {
    const left = new Set(rowsShown.order());
    boxes.forEach((box) => { box.parentElement.hidden = !box.checked && !left.has(Number(box.dataset.row)); });
  };
  form.addEventListener("change", () => { show(); list(); });
  rowsShown.onChange(list);
  form.hidden = false;
  // A browser may keep what was ticked before the page was loaded again.
  form.reset();
  show();
});
