// Keeps notes: PUT /notes/NAME with a text as its body answers 204, GET /notes/NAME the text, GET /health whether it works.
// A note whose PUT was answered is on the disk.
'use strict';

const { once } = require('node:events');
const fs = require('node:fs/promises');
const http = require('node:http');
const path = require('node:path');
const { text } = require('node:stream/consumers');

const FOLDER = path.join(__dirname, 'notes');
const PORT = Number(process.env.PORT ?? 8080);

/** Writes a file whole or not at all, and waits until it is on the disk. */
async function store(name, content) {
    const unfinished = path.join(FOLDER, `.${name}.new`);
    await fs.writeFile(unfinished, content, { flush: true });
    await fs.rename(unfinished, path.join(FOLDER, name));
    const folder = await fs.open(FOLDER);
    await folder.sync();
    await folder.close();
}

/** The status and the text of an answer. */
async function answer(request) {
    if (request.method === 'GET' && request.url === '/health') {
        return [200, 'works\n'];
    }
    const name = /^\/notes\/([a-z]+)$/.exec(request.url)?.[1];
    if (name === undefined) {
        return [404, `there is no ${request.url}\n`];
    }
    if (request.method === 'PUT') {
        await store(name, await text(request));
        return [204, ''];
    }
    try {
        return [200, await fs.readFile(path.join(FOLDER, name))];
    } catch (error) {
        if (error.code !== 'ENOENT') throw error;
        return [404, `there is no note ${name}\n`];
    }
}

const server = http.createServer(async (request, response) => {
    let [status, body] = [500, ''];
    try {
        [status, body] = await answer(request);
    } catch (error) {
        console.error(error);
    }
    response.writeHead(status, { 'Content-Type': 'text/plain' }).end(body);
});

// Process 1 has no handlers that it has not set itself.
for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, async () => {
        console.log(`${signal}: stops`);
        server.close();
        server.closeIdleConnections();
        await once(server, 'close');
        console.log('stopped');
    });
}
server.listen(PORT, () => console.log(`listens on port ${PORT}`));
