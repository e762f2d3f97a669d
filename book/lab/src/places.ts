/**
 * Lists of places as text, for a page's address: four characters each, hundredths from the left and from the bottom
 * edge of a plane that reaches from -right to right and from -top to top.
 */

export type Places = readonly (readonly number[])[];

/** The setting's `valid`: at most `most` places. */
export const placed = (most: number) => (found: string) => /^([0-9a-z]{4})*$/.test(found) && found.length <= 4 * most;

export function encode(places: Places, right: number, top: number): string {
  const digits = (value: number, edge: number) =>
    Math.round((Math.min(Math.max(value, -edge), edge) + edge) * 100)
      .toString(36)
      .padStart(2, "0");
  return places.map(([x, y]) => digits(x, right) + digits(y, top)).join("");
}

export function decode(text: string, right: number, top: number): number[][] {
  const value = (digits: string, edge: number) => Math.round(parseInt(digits, 36) - edge * 100) / 100;
  return (text.match(/.{4}/g) ?? []).map((each) => [value(each.slice(0, 2), right), value(each.slice(2), top)]);
}
