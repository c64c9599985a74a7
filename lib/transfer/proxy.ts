const VARIABLES = ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"];

let proxied: { key: string; fetch: typeof fetch } | undefined;

/**
 * Node's `fetch`, or where a proxy variable is set one that goes by it, NO_PROXY included: Node's own does so only from
 * version 24 on, when it is asked to.
 */
export async function proxiedFetch(env: NodeJS.ProcessEnv): Promise<typeof fetch> {
  if (!VARIABLES.some((name) => env[name])) return fetch;
  const httpProxy = env.http_proxy || env.HTTP_PROXY;
  const httpsProxy = env.https_proxy || env.HTTPS_PROXY || httpProxy;
  const noProxy = env.no_proxy ?? env.NO_PROXY ?? "";
  const key = JSON.stringify([httpProxy, httpsProxy, noProxy]);
  if (proxied?.key === key) return proxied.fetch;
  const { EnvHttpProxyAgent, fetch: send } = await import("undici");
  const dispatcher = new EnvHttpProxyAgent({
    ...(httpProxy && { httpProxy }),
    ...(httpsProxy && { httpsProxy }),
    noProxy,
  });
  // The types of undici and of Node differ in their names alone.
  const call = ((input, init) => send(input as never, { ...init, dispatcher } as never)) as typeof fetch;
  proxied = { key, fetch: call };
  return call;
}
