// Newline echo with Node's net: the lines of a chunk leave in one write; while it waits, the
// connection is paused.
'use strict';
const net = require('node:net');

const LINE_MAX = 64 * 1024;
const NEWLINE = 10;

const server = net.createServer({ noDelay: true }, (socket) => {
  let partial = null;
  socket.on('data', (chunk) => {
    const input = partial ? Buffer.concat([partial, chunk]) : chunk;
    let from = partial ? partial.length : 0;
    let used = 0;
    const lines = [];
    for (let end; (end = input.indexOf(NEWLINE, from)) >= 0;) {
      from = end + 1;
      lines.push(input.subarray(used, from));
      used = from;
    }
    partial = used < input.length ? Buffer.from(input.subarray(used)) : null;
    if (partial && partial.length > LINE_MAX) {
      socket.destroy();
    } else if (lines.length > 0) {
      const output = lines.length === 1 ? lines[0] : Buffer.concat(lines, used);
      if (!socket.write(output)) socket.pause();
    }
  });
  socket.on('drain', () => socket.resume());
  socket.on('error', () => socket.destroy());
});
server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });
