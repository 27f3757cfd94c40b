// Times completion requests to a second Node.js process, one after the other.
//
// Arguments: transport (fork-json, fork-advanced or net-json-lines), path of server.mjs, path for a socket, bytes of a prompt,
// milliseconds of warm-up, of measuring and of the pause before each request (negative: none). Prints one line of JSON.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const [transport, serverPath, socketPath, ...numbers] = process.argv.slice(2);
const [promptBytes, warmUpMs, lengthMs, pauseMs] = numbers.map(Number);

// The first process of the benchmark keeps our input open: we end when it does.
process.stdin.resume().on('end', () => process.exit(1));
process.on('uncaughtException', (error) => fail(error.message));

function finish(answer) {
  process.stdout.write(`${JSON.stringify(answer)}\n`, () => process.exit(0));
}

function fail(message) {
  finish({ error: message });
}

// Strings of one byte per character, as a text in a common language is.
function makeRequest(number) {
  const ends = String(number).padStart(8, '0');
  const prompt = Buffer.from(ends + 'x'.repeat(Math.max(0, promptBytes - 16)) + ends).toString('latin1');
  return { type: 'completion_request', data: { prompt, model: 'small-and-fast' } };
}

function check(reply, request) {
  const [got, sent] = [reply.data.prompt, request.data.prompt];
  if (reply.type !== 'completion_response' || got.length !== sent.length
      || got.slice(0, 8) !== sent.slice(0, 8) || got.slice(-8) !== sent.slice(-8)) {
    throw new Error('the reply is not what was asked for');
  }
}

// Returns a function that sends one request and calls back with the whole reply.
async function connect() {
  const serialization = transport === 'fork-advanced' ? 'advanced' : 'json';
  const server = fork(serverPath, [transport, socketPath], { serialization });
  server.on('exit', () => fail('the server has ended'));
  let receive;
  if (transport !== 'net-json-lines') {
    server.on('message', (reply) => receive(reply));
    return (request, callback) => {
      receive = callback;
      server.send(request);
    };
  }
  await once(server, 'message');
  const socket = net.connect(socketPath);
  await once(socket, 'connect');
  socket.setEncoding('utf8');
  let parts = [];
  socket.on('data', (text) => {
    parts.push(text);
    if (text.endsWith('\n')) {
      const line = parts.length === 1 ? text : parts.join('');
      parts = [];
      receive(JSON.parse(line));
    }
  });
  return (request, callback) => {
    receive = callback;
    socket.write(`${JSON.stringify(request)}\n`);
  };
}

const send = await connect();
const requests = [1, 2, 3, 4].map(makeRequest);
const times = [];
let [sum, number] = [0, 0];
const countedFrom = performance.now() + warmUpMs;
const end = countedFrom + lengthMs;

async function next() {
  // A timer that is not waited for as a promise would be no cheaper: the pause is no part of the time.
  if (pauseMs >= 0) await sleep(pauseMs);
  const request = requests[number++ % requests.length];
  const begun = performance.now();
  send(request, (reply) => {
    const now = performance.now();
    check(reply, request);
    if (begun >= countedFrom) {
      times.push(now - begun);
      sum += now - begun;
    }
    if (now < end || times.length === 0) next();
    else report();
  });
}

function report() {
  times.sort((left, right) => left - right);
  const quantile = (part) => times[Math.min(times.length - 1, Math.floor(times.length * part))] * 1e6;
  finish({
    figures: {
      messages: times.length,
      elapsed_ns: sum * 1e6,
      p50_ns: quantile(0.5),
      p99_ns: quantile(0.99),
      p999_ns: quantile(0.999),
    },
  });
}

next();
