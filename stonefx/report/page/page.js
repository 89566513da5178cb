"use strict";
(() => {
  const all = (selector, inside = document) => Array.from(inside.querySelectorAll(selector));
  const one = (id) => document.getElementById(id);
  const kept = {
    // A file may be opened where storage is not allowed.
    read: () => { try { return localStorage.getItem("stonefx-theme"); } catch { return null; } },
    write: (theme) => { try { localStorage.setItem("stonefx-theme", theme); } catch { return; } },
  };

  // Light and dark: as the system, or as chosen.
  const themes = { "": "as the system", light: "light", dark: "dark" };
  const button = one("theme");
  const show = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    button.querySelector("span").textContent = themes[theme];
  };
  const first = kept.read();
  show(first in themes ? first : "");
  button.hidden = false;
  button.addEventListener("click", () => {
    const names = Object.keys(themes);
    const next = names[(names.indexOf(document.documentElement.dataset.theme || "") + 1) % names.length];
    show(next);
    kept.write(next);
  });

  // Modules with many others in them are closed at first.
  all(".toggle").forEach((each) => {
    const below = each.closest("li").querySelector("ul");
    const turn = (yes) => { below.hidden = !yes; each.setAttribute("aria-expanded", yes); };
    turn(below.children.length < 9);
    each.addEventListener("click", () => turn(below.hidden));
  });

  const table = one("table");
  if (!table) return;
  const sites = all("tbody", table);
  const filters = document.querySelector(".filters");
  filters.hidden = false;

  // Details are open where there is no script; here each row opens its own.
  const open = (site, yes) => {
    site.querySelector(".detail").hidden = !yes;
    site.querySelector(".open").setAttribute("aria-expanded", yes);
  };
  sites.forEach((site) => {
    open(site, false);
    site.querySelector(".open").addEventListener("click", (event) => {
      open(site, event.currentTarget.getAttribute("aria-expanded") !== "true");
    });
  });
  const unfold = one("unfold");
  unfold.addEventListener("click", () => {
    const yes = unfold.getAttribute("aria-pressed") !== "true";
    unfold.setAttribute("aria-pressed", yes);
    unfold.textContent = yes ? "Close all" : "Open all";
    sites.filter((site) => !site.hidden).forEach((site) => open(site, yes));
  });

  // Filters.
  const text = new Map(sites.map((site) => [site, site.textContent.toLowerCase()]));
  const modules = all(".module");
  const inside = (path, module) => path === module || path.startsWith(module + ".");
  const apply = () => {
    const words = one("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const module = one("module").value.trim().replace(/\.$/, "");
    const chosen = ["status", "target", "code"].map((name) => [name, one(name).value]);
    let count = 0;
    sites.forEach((site) => {
      const fits = chosen.every(([name, value]) => !value || site.dataset[name] === value)
        && (!module || site.dataset.module.split(", ").some((path) => inside(path, module)))
        && words.every((word) => text.get(site).includes(word));
      site.hidden = !fits;
      count += fits;
    });
    one("shown").textContent = `${count} of ${sites.length} sites`;
    modules.forEach((each) => each.setAttribute("aria-pressed", each.dataset.module === module));
  };
  filters.addEventListener("input", apply);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(apply));
  modules.forEach((each) => each.addEventListener("click", (event) => {
    event.preventDefault();
    one("module").value = each.dataset.module;
    apply();
    one("sites").scrollIntoView();
  }));

  // Sorting: again turns around.
  const compare = (name) => (a, b) => {
    if (name === "number" || name === "saving") return Number(a.dataset[name]) - Number(b.dataset[name]);
    return a.dataset[name].localeCompare(b.dataset[name], "en", { numeric: true });
  };
  all(".sort", table).forEach((each) => each.addEventListener("click", () => {
    const name = each.dataset.sort, head = each.closest("th"), was = head.getAttribute("aria-sort");
    const down = was ? was === "ascending" : name === "saving";
    all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = compare(name), number = compare("number");
    const sorted = sites.slice().sort((a, b) => (down ? -order(a, b) : order(a, b)) || number(a, b));
    table.append(...sorted);
  }));

  // A link such as #site-12 shows and opens that site.
  const follow = () => {
    const site = /^#site-\d+$/.test(location.hash) ? one(location.hash.slice(1)) : null;
    sites.forEach((other) => other.classList.toggle("meant", other === site));
    if (!site) return;
    if (site.hidden) { filters.reset(); apply(); }
    open(site, true);
    site.focus({ preventScroll: true });
    site.scrollIntoView();
  };
  addEventListener("hashchange", follow);
  follow();
})();
