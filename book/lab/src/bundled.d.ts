/** The text of a bundled worker, see build.js. */
declare module "worker:*" {
  const source: string;
  export default source;
}
