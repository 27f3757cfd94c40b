// Answers completion requests, over the channel of child_process.fork or over a Unix socket with a line of JSON for each
// message. Ends with the process that has forked it.
import net from 'node:net';

const [transport, socketPath] = process.argv.slice(2);
process.on('disconnect', () => process.exit(0));

function answer(request) {
  return { type: 'completion_response', data: request.data };
}

if (transport === 'net-json-lines') {
  const server = net.createServer((socket) => {
    socket.setEncoding('utf8');
    socket.on('error', () => socket.destroy());
    let parts = [];
    socket.on('data', (text) => {
      parts.push(text);
      if (text.endsWith('\n')) {
        const line = parts.length === 1 ? text : parts.join('');
        parts = [];
        socket.write(`${JSON.stringify(answer(JSON.parse(line)))}\n`);
      }
    });
  });
  server.listen(socketPath, () => process.send('ready'));
} else {
  process.on('message', (request) => process.send(answer(request)));
}
