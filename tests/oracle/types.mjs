// Prints what @cloudflare/codemode declares of tools, or what keeps a text from being TypeScript: one JSON line in,
// one out.
// In:  {"tools": {NAME: {"description", "inputSchema", "outputSchema"}}}, or {"text": TEXT}
// Out: {"types": TEXT}, or {"problems": [TEXT]}
// ORACLE_PACKAGES is the directory with the node_modules of package-lock.json beside this file.
import { createRequire, register } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// The package is made for workerd, whose own module it imports; types are made without it.
const workers = "export class DurableObject {}; export class RpcTarget {}; export class WorkerEntrypoint {}; export const env = {}; export const exports = {};";
const hooks = `export async function resolve(name, context, next) {
    return name === "cloudflare:workers"
        ? { url: ${JSON.stringify(`data:text/javascript,${encodeURIComponent(workers)}`)}, shortCircuit: true }
        : next(name, context);
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);

const require = createRequire(`${process.env.ORACLE_PACKAGES}/package.json`);
const { generateTypesFromJsonSchema } = await import(pathToFileURL(require.resolve("@cloudflare/codemode")));
const { default: ts } = await import(pathToFileURL(require.resolve("typescript")));

const problemsOf = (text) =>
    ts.createSourceFile("declared.ts", text, ts.ScriptTarget.Latest).parseDiagnostics.map((one) => ts.flattenDiagnosticMessageText(one.messageText, " "));

for await (const line of createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    const answer = "text" in asked ? { problems: problemsOf(asked.text) } : { types: generateTypesFromJsonSchema(asked.tools) };
    process.stdout.write(`${JSON.stringify(answer)}\n`);
}
