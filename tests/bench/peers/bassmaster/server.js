// npm's bassmaster as it is meant: a hapi server whose own routes are called inside the process.
// Its routes fetch from the backend with hapi's client, kept connections.
'use strict';

const Http = require('http');
const Hapi = require('@hapi/hapi');
const Wreck = require('@hapi/wreck');

const [port, backend] = process.argv.slice(2);
const agent = new Http.Agent({ keepAlive: true, maxSockets: 64 });
const client = Wreck.defaults({ baseUrl: backend, agent });

const fetch = async (request) => {
    const headers = { 'oauth-token': request.headers['oauth-token'] };
    const { payload } = await client.request(request.method, request.url.pathname, { headers })
        .then(async (answer) => ({ payload: await Wreck.read(answer, { json: true }) }));
    return payload;
};

const main = async () => {
    const server = Hapi.server({ host: '127.0.0.1', port, routes: { payload: { maxBytes: 2 ** 30 } } });
    await server.register({ plugin: require('bassmaster') });
    server.route({ method: 'GET', path: '/rest/{path*}', handler: fetch });
    await server.start();
    process.once('SIGTERM', () => process.exit(0));
};

main();
