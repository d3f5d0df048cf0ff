// Runs unittest modules on real MicroPython: copies the sources into its in-memory file system first.
// Usage: node run.mjs MICROPYTHON_MJS ROOT FOLDER[,FOLDER...] MODULE...
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [micropythonFile, root, folders, ...modules] = process.argv.slice(2);
const { loadMicroPython } = await import(pathToFileURL(micropythonFile));
const micropython = await loadMicroPython({
  heapsize: 32 * 1024 * 1024,
  pystack: 64 * 1024,
  stdout: (line) => console.log(line),
  linebuffer: true,
});

function copy(source, target) {
  micropython.FS.mkdirTree(target);
  for (const entry of fs.readdirSync(source, { withFileTypes: true })) {
    const from = path.join(source, entry.name);
    if (entry.isDirectory() && entry.name !== "__pycache__") copy(from, `${target}/${entry.name}`);
    else if (entry.name.endsWith(".py")) micropython.FS.writeFile(`${target}/${entry.name}`, fs.readFileSync(from));
  }
}

for (const folder of folders.split(",")) copy(path.join(root, folder), `/source/${path.basename(folder)}`);

const script = `
import sys
import unittest
sys.path.insert(0, "/source")
sys.path.insert(0, "/source/micropython")
suite = unittest.TestSuite()
for name in ${JSON.stringify(modules)}:
    module = __import__(name)
    for entry in dir(module):
        case = getattr(module, entry)
        if isinstance(case, type) and issubclass(case, unittest.TestCase) and case is not unittest.TestCase:
            suite.addTest(case)
result = unittest.TestRunner().run(suite)
print("RESULT run=%d failed=%d" % (result.testsRun, result.failuresNum + result.errorsNum))
`;
try {
  micropython.runPython(script);
} catch (error) {
  console.log(error.message);
  process.exit(1);
}
