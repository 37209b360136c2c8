// What the search of the site finds: sections of pages, the best first, in the place of whole pages with every word.
// sections.js, which sections.py writes, has [page, anchor, title, search words, text] of each. They are ranked by BM25
// over four fields (Robertson and Zaragoza 2009, section 3.6). Pages load this, and run_search.js runs it in Node.

// Title of the section, title of its page, search words, text: how much a word counts there, and how much the length of
// the field lowers it.
const WEIGHTS = [5, 2, 5, 1];
const SLOPES = [0.6, 0.3, 0.1, 0.5];
const SATURATION = 1.2; // k_1
const OF_A_SYNONYM = 0.7; // how much a word counts that stands for another
const MOST_RESULTS = 20;

// What readers say, and what the pages say.
const SAME = [
  ["ckpt", "checkpoint"],
  ["config", "configuration"],
  ["dataset", "data"],
  ["gpu", "card"],
  ["nll", "likelihood"],
  ["params", "parameters"],
  ["picture", "image"],
  ["timestep", "step"],
  ["vocab", "vocabulary"],
];

// Pages that answer questions come first, names of the reference and pages of details last. The first that fits counts.
const FACTORS = [
  ["how-to/index", 0.5],
  ["how-to/", 1.35],
  ["tutorials/", 1.2],
  ["coming-from", 1.25],
  ["not-here", 1.25],
  ["reference/", 0.45],
  ["index", 0.4],
  ["start", 1.2],
  ["architecture", 0.6],
  ["config-reference", 0.7],
  ["questions", 0.8],
  ["results", 0.8],
  ["samplers-measured", 0.8],
  ["trainings", 0.6],
];
const OF_A_NAME = 3; // the entry of a name that is the whole query, as in posterior_kl
const OF_A_PHRASE = 2; // a section among whose search words the whole query stands, between commas

const stemmer = new Stemmer();
const stems = new Map();
const stem = (word) => {
  const american = word.replace(/is(e[drs]*|ing|ations?)$/, "iz$1").replace(/(?<=..)our(s?)$/, "or$1");
  if (!stems.has(word)) stems.set(word, stemmer.stemWord(american));
  return stems.get(word);
};

// The words of a text as they are compared: "fine-tune" is fine, tune and finetune, 50,000 is 50000.
const listWords = (text) => {
  const unaccented = text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "");
  const plain = unaccented.replace(/w&b/g, "wandb").replace(/(\d),(?=\d{3})/g, "$1");
  return [...plain.matchAll(/[\p{L}\p{N}]+(?:[-_][\p{L}\p{N}]+)*/gu)].flatMap(([compound]) => {
    const parts = compound.split(/[-_]/);
    return (parts.length > 1 ? [...parts, parts.join("")] : parts).map(stem);
  });
};

const writePlainly = (text) => listWords(text).join(" ");

const countWords = (fields) => {
  const counts = new Map();
  fields.forEach((words, field) =>
    words.forEach((word) => {
      if (!counts.has(word)) counts.set(word, fields.map(() => 0));
      counts.get(word)[field] += 1;
    }),
  );
  return counts;
};

// Makes of the rows a map from each word to the sections that have it, with its count, lowered by the lengths.
const buildIndex = (rows) => {
  const pageTitles = new Map(rows.filter((row) => !row[1]).map((row) => [row[0], row[2]]));
  const sections = rows.map(([page, anchor, title, searchWords, text]) => {
    const pageTitle = pageTitles.get(page) || title;
    const fields = [title, pageTitle, searchWords, text].map(listWords);
    const phrases = new Set(searchWords.split(",").map(writePlainly));
    return { page, anchor, title, pageTitle, fields, phrases };
  });
  const means = WEIGHTS.map(
    (_, field) => sections.reduce((sum, section) => sum + section.fields[field].length, 1) / sections.length,
  );
  const hits = new Map();
  sections.forEach((section, number) => {
    const lengths = section.fields.map((words, field) => 1 + SLOPES[field] * (words.length / means[field] - 1));
    countWords(section.fields).forEach((counts, word) => {
      const count = counts.reduce((sum, n, field) => sum + (WEIGHTS[field] * n) / lengths[field], 0);
      if (!hits.has(word)) hits.set(word, new Map());
      hits.get(word).set(number, count);
    });
  });
  return { sections, hits };
};

// The words that a word of a query may be found as, each with what it then counts.
const listForms = (hits, word) => {
  const forms = new Map([[word, 1]]);
  SAME.map((group) => group.map(stem))
    .filter((group) => group.includes(word))
    .flat()
    .forEach((other) => forms.has(other) || forms.set(other, OF_A_SYNONYM));
  if ([...forms.keys()].some((form) => hits.has(form))) return forms;
  // A word that no page has: those that begin as it does, or as most of it does if its end is mistyped.
  for (let length = word.length; length > 3 && length > word.length - 3; length--) {
    const alike = [...hits.keys()].filter((known) => known.startsWith(word.slice(0, length)));
    if (alike.length) return new Map(alike.map((known) => [known, OF_A_SYNONYM]));
  }
  return forms;
};

const isName = (query) => /[a-z\d][A-Z._][A-Za-z]/.test(query) && !/\s/.test(query);

const findSections = (query) => {
  const { sections, hits } = Search._index;
  const all = [...new Set(listWords(query))];
  const plain = writePlainly(query);
  const telling = all.filter((word) => !stopStems.has(word));
  const scores = new Map();
  const covered = new Map();
  let total = 0;
  (telling.length ? telling : all).forEach((word) => {
    const counts = new Map();
    listForms(hits, word).forEach((factor, form) =>
      (hits.get(form) || new Map()).forEach((count, number) =>
        counts.set(number, Math.max(counts.get(number) || 0, factor * count)),
      ),
    );
    if (!counts.size) return;
    const rarity = Math.log(1 + (sections.length - counts.size + 0.5) / (counts.size + 0.5));
    total += rarity;
    counts.forEach((count, number) => {
      scores.set(number, (scores.get(number) || 0) + (rarity * count) / (SATURATION + count));
      covered.set(number, (covered.get(number) || 0) + rarity);
    });
  });
  const rank = ([number, score]) => {
    const { page, title, phrases } = sections[number];
    const factor = (FACTORS.find(([start]) => page.startsWith(start)) || ["", 1])[1];
    // A name of the PyTorch reference is that of the function in JAX, which comes first.
    const isFirst = !page.startsWith("reference/torch_ref");
    const named = isFirst && isName(query) && (title === query || title.endsWith(`.${query}`)) ? OF_A_NAME / factor : 1;
    const phrased = phrases.has(plain) ? OF_A_PHRASE : 1;
    return [number, score * factor * named * phrased * (covered.get(number) / total) ** 2];
  };
  return [...scores].map(rank).sort((a, b) => b[1] - a[1]).slice(0, MOST_RESULTS)
    .map(([number, score]) => ({ ...sections[number], score }));
};

// Words of a question that say nothing of its subject.
const stopStems = new Set([...stopwords, "use", "using", "get", "make", "want", "need", "way", "possible", "vs", "versus"].map(stem));

// In the place of Sphinx's own search, which shows these from the last to the first.
Search.setIndex = ((setIndex) => (rows) => setIndex(buildIndex(rows)))(Search.setIndex);
Search._performSearch = (query) =>
  findSections(query.trim())
    .map(({ page, anchor, title, pageTitle, score }) => [
      page,
      anchor && !page.startsWith("reference/") ? `${pageTitle} > ${title}` : title,
      anchor && `#${anchor}`,
      null,
      score,
      page,
      "text",
    ])
    .reverse();
