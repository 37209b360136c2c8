// Ranks what the search of the site finds: answers and tutorials first, names of the reference and pages of details last.
var Scorer = {
  score: (result) => {
    const [page, , , , score] = result;
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
