// A certified OpenID provider for the tests: client credentials, JWT access tokens with groups. The client `terminal` has no secret, and
// signs people in by the device authorization grant (RFC 8628), on the provider's own pages.
// Read from standard input by `node`, in the directory that has node_modules.
// In: PORT (0: any), KEYS (file that keeps the keys over a restart), CLIENTS (JSON: id -> claims), AUDIENCE, TTL (s).
// A resource `NAME:opaque` gives an opaque token for NAME; every client may introspect, and revoke its own (POST /token/revocation).
// Out: one line "ready http://127.0.0.1:PORT". Control: POST /control/rotate?keep=true&alg=RS256, POST /control/ttl?seconds=N,
// POST /control/sign {"header", "claims"}: whatever the test wants signed with the real key; "stolen": false takes another key.
import fs from 'node:fs';
import http from 'node:http';
import { generateKeyPair, exportJWK, importJWK, SignJWT } from 'jose';
import { Provider } from 'oidc-provider';

const { KEYS, CLIENTS, AUDIENCE } = process.env;
const claims = JSON.parse(CLIENTS);
let ttl = Number(process.env.TTL);

async function newKey(alg) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { ...await exportJWK(privateKey), kid: `k${Date.now()}-${Math.trunc(Math.random() * 1e6)}`, alg, use: 'sig' };
}
let keys = fs.existsSync(KEYS) ? JSON.parse(fs.readFileSync(KEYS)) : [await newKey('RS256')];

let provider;
function serve(issuer) {
  fs.writeFileSync(KEYS, JSON.stringify(keys), { mode: 0o600 });
  provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'terminal',
      application_type: 'native',
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code'],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: 'none',
    }, ...Object.keys(claims).map((client_id) => ({
      client_id,
      client_secret: 's3cret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: 'client_secret_basic',
      id_token_signed_response_alg: keys[0].alg,
    }))],
    scopes: ['openid', 'chat'],
    features: {
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => AUDIENCE,
        useGrantedResource: () => true,
        // A resource whose name ends in `:opaque` is that before it, with tokens that say nothing.
        getResourceServerInfo: (_ctx, resource) => ({
          scope: 'chat',
          audience: resource.replace(/:opaque$/, ''),
          accessTokenTTL: ttl,
          ...resource.endsWith(':opaque')
            ? { accessTokenFormat: 'opaque' }
            : { accessTokenFormat: 'jwt', jwt: { sign: { alg: keys[0].alg } } },
        }),
      },
    },
    ttl: { ClientCredentials: () => ttl },
    // Who signed in says of which groups they are: `sam+security`.
    extraTokenClaims: (ctx, token) => (token.clientId === 'terminal'
      ? { groups: token.accountId.split('+').slice(1), auth_time: ctx.oidc.entities.DeviceCode.authTime }
      : claims[token.clientId]),
  }).callback();
}

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, 'http://provider');
  if (request.method === 'POST' && url.pathname === '/control/rotate') {
    const key = await newKey(url.searchParams.get('alg') ?? 'RS256');
    keys = url.searchParams.get('keep') === 'false' ? [key] : [key, ...keys];
    serve(issuer);
    response.end(key.kid);
  } else if (request.method === 'POST' && url.pathname === '/control/ttl') {
    ttl = Number(url.searchParams.get('seconds'));
    response.end();
  } else if (request.method === 'POST' && url.pathname === '/control/sign') {
    const { header, claims, stolen } = JSON.parse((await request.toArray()).join(''));
    const { kid, alg } = keys[0];
    const key = stolen ? await importJWK(keys[0], alg) : (await generateKeyPair(alg)).privateKey;
    response.end(await new SignJWT(claims).setProtectedHeader({ alg, kid, typ: 'at+jwt', ...header }).sign(key));
  } else {
    provider(request, response);
  }
});
let issuer;
server.listen(Number(process.env.PORT), '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  serve(issuer);
  console.log(`ready ${issuer}`);
});
