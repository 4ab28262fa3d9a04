// For a run of an executable that the bundler makes (`node --require`): writes the bytecode that V8 has when the run ends, so of all
// functions that were called, to the file that PASSEL_BYTECODE names. The file is opened now, because the sandbox lets none be opened later.
const { openSync, writeSync } = require('node:fs');
const vm = require('node:vm');

const fd = openSync(process.env['PASSEL_BYTECODE'], 'w', 0o644);
delete process.env['PASSEL_BYTECODE'];
vm.Script = class extends vm.Script {
  constructor(source, options) {
    super(source, options);
    process.once('exit', () => writeSync(fd, this.createCachedData()));
  }
};
