const PER_PAGE = 5;
const contents = JSON.parse(document.getElementById("contents").textContent);

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

function fill(holder) {
  const content = contents[holder.dataset.sample];
  if (holder.hasChildNodes() || !content) return;
  if (content.frames) holder.append(element("img", { src: content.frames, alt: "frames of the sample" }));
  if (content.player) holder.append(element("video", { src: content.player, controls: true, preload: "metadata" }));
  if (content.audio) holder.append(element("audio", { src: content.audio, controls: true, preload: "metadata" }));
  if (content.note) holder.append(element("p", { className: "note", textContent: content.note }));
}

const sections = [...document.querySelectorAll(".examples")].map((section) => {
  const examples = [...section.querySelectorAll("article")];
  const [back, label, forth] = ["button", "span", "button"].map((tag) => element(tag, {}));
  back.textContent = "previous";
  forth.textContent = "next";
  const pages = element("div", { className: "pages" });
  pages.append(back, label, forth);
  section.append(pages);
  let first = 0, wanted = "";
  function show() {
    const found = examples.filter((example) => example.textContent.toLowerCase().includes(wanted));
    const shown = found.slice(first, first + PER_PAGE);
    for (const example of examples) example.hidden = !shown.includes(example);
    for (const example of shown) example.querySelectorAll(".media").forEach(fill);
    label.textContent = found.length ? `${first + 1} to ${first + shown.length} of ${found.length}` : "nothing found";
    back.disabled = first === 0;
    forth.disabled = first + PER_PAGE >= found.length;
  }
  back.onclick = () => { first -= PER_PAGE; show(); };
  forth.onclick = () => { first += PER_PAGE; show(); };
  show();
  return (text) => { first = 0; wanted = text; show(); };
});

const search = document.getElementById("search");
search.oninput = () => sections.forEach((filter) => filter(search.value.trim().toLowerCase()));
