/** The text of a bundled worker, see build.js. */
declare module "worker:*" {
  const source: string;
  export default source;
}

declare module "versions:" {
  const versions: Record<string, string>;
  export default versions;
}
