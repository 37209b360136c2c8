// Ranks what the search of the site finds: answers and tutorials first, names of the reference and pages of details last.
// Sphinx counts the best word of a query alone. Here each word that the title has counts.
const listWords = (text) => text.toLowerCase().match(/[\p{Letter}\p{Number}_]+/gu) || [];
const listQuery = () => listWords(new URLSearchParams(window.location.search).get("q") || "");

var Scorer = {
  score: (result) => {
    const [page, title, , , best] = result;
    const words = new Set(listWords(title));
    const score = best + 4 * new Set(listQuery().filter((word) => words.has(word))).size;
    if (page.startsWith("how-to/")) return score + 6;
    if (page.startsWith("tutorials/")) return score + 5;
    if (page === "coming-from" || page === "not-here") return score + 4;
    if (page.startsWith("reference/")) return score - 9;
    if (["index", "architecture", "config-reference"].includes(page)) return score - 4;
    return score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
