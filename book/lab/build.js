// Bundles the labs into classic scripts, which also load on a page that was opened from a file:
// one for the shell, and one for each lab, which becomes `slotlab.NAME`.
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { basename, join } from "node:path";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = process.argv[2] ?? join(here, "../assets/lab");
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

mkdirSync(out, { recursive: true });
for (const file of readdirSync(out)) if (file.endsWith(".js")) rmSync(join(out, file));
await build({ ...shared, entryPoints: [join(here, "src/shell.ts")], outdir: out });
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
