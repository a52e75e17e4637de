// Rounds, and rows of the table as table.awk reads them.
export const ROUNDS = 9;

// The figures of each, ROUNDS of them, taken in turn.
export async function inTurn(...measures) {
  const figures = measures.map(() => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, measure] of measures.entries()) figures[i].push(await measure());
  }
  return figures;
}

export function row(what, unit, target, ours, peer = []) {
  const cells = [ours, peer].map((figures) => figures.map((figure) => Number(figure.toPrecision(6))).join(' '));
  console.log([what, unit, target, ...cells].join('\t'));
}
