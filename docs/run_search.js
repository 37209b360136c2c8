// Runs the search of the site without a browser: prints the first hits of each line of the standard input.
//
//     node docs/run_search.js build/site 1 < QUERIES
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const [site, most] = process.argv.slice(2);
const Search = { setIndex: (index) => (Search._index = index) }; // what search.js needs of Sphinx's searchtools.js
const context = vm.createContext({ Search });
context.window = context; // to which language_data.js gives the stemmer
for (const file of ["_static/language_data.js", "sections.js"])
  vm.runInContext(fs.readFileSync(path.join(site, file), "utf8"), context);
for (const query of fs.readFileSync(0, "utf8").trim().split("\n")) {
  const hits = Search._performSearch(query).reverse().slice(0, Number(most));
  console.log(hits.map(([page, , anchor]) => page + anchor).join(" "));
}
