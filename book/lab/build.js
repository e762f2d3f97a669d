// Bundles the labs into classic scripts, which also load on a page that was opened from a file:
// one for the shell, and one for each lab, which becomes `slotlab.NAME`.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { basename, join } from "node:path";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const assets = join(here, "../assets/lab");
const out = process.argv[2] ?? assets;
const shared = { bundle: true, minify: true, format: "iife", target: "es2022", charset: "utf8", logLevel: "warning" };

/** `import source from "worker:./x.ts"`: the bundled worker as text, because a file may start one from a blob only. */
const workers = {
  name: "workers",
  setup(it) {
    it.onResolve({ filter: /^worker:/ }, ({ path, resolveDir }) => ({
      path: join(resolveDir, path.slice("worker:".length)),
      namespace: "worker",
    }));
    it.onLoad({ filter: /.*/, namespace: "worker" }, async ({ path }) => {
      const { outputFiles } = await build({ ...shared, entryPoints: [path], write: false });
      return { contents: outputFiles[0].text, loader: "text" };
    });
  },
};

const scripts = (folder) => readdirSync(folder).filter((name) => name.endsWith(".js"));
const version = (file) => createHash("sha256").update(readFileSync(file)).digest("hex").slice(0, 8);

/** `import versions from "versions:"`: of each script that is loaded when it is needed a hash of what is in it. */
const versions = {
  name: "versions",
  setup(it) {
    it.onResolve({ filter: /^versions:$/ }, ({ path }) => ({ path, namespace: "versions" }));
    it.onLoad({ filter: /.*/, namespace: "versions" }, () => ({
      contents: JSON.stringify({
        ...Object.fromEntries(scripts(out).map((name) => [name, version(join(out, name))])),
        ...Object.fromEntries(scripts(join(assets, "weights")).map((name) => [`weights/${name}`, version(join(assets, "weights", name))])),
      }),
      loader: "json",
    }));
  },
};

mkdirSync(out, { recursive: true });
for (const file of scripts(out)) rmSync(join(out, file));
for (const file of readdirSync(join(here, "src/labs")).filter((name) => name.endsWith(".ts"))) {
  const name = basename(file, ".ts");
  await build({
    ...shared,
    entryPoints: [join(here, "src/labs", file)],
    globalName: `slotlab.${name}`,
    outfile: join(out, `${name}.js`),
    plugins: [workers],
  });
}
await build({ ...shared, entryPoints: [join(here, "src/shell.ts")], outdir: out, plugins: [versions] });
