// Loads a program together with V8's bytecode of it from when it was bundled: it starts in half the time then. V8 itself looks
// whether the bytecode fits its version, its flags and the processor; bytecode that does not, or is not there, is made from the source.
// The bundler puts the program's file name, which changes with its content, in place of PROGRAM.
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { Script } = require('node:vm');

const folder = join(__dirname, '../programs');
const filename = join(folder, 'PROGRAM.cjs');
let cachedData;
try {
  cachedData = readFileSync(join(folder, 'PROGRAM.cache'));
} catch {
  // As said: slower.
}
// The bundler writes ASCII. As such it takes half the memory and need not be decoded. The function around it is in the file already: to put
// it there now would copy the text twice.
const source = readFileSync(filename, 'latin1');
const script = new Script(source, { filename, cachedData });
script.runInThisContext()(exports, require, module, filename, folder);
