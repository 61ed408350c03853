// The task of a page that asks for a CAPTCHA: the provider's widget, as each documents it.
'use strict';

function limiterTask(page, { solved, away }) {
  // A script that does not come by then does not come.
  const PATIENCE_MS = 20 * 1000;

  const { provider, siteKey, script, action, unloaded } = page.dataset;
  const widget = document.getElementById('widget');
  const { lang } = document.documentElement;
  const theme = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
  let reset = () => location.reload();

  // Whether the provider is away for all or for this browser alone, limiter finds out.
  const gone = () => solved(unloaded);
  const late = setTimeout(gone, PATIENCE_MS);

  const load = (parameters, ready, module = false) => {
    const url = new URL(script);
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    const element = document.createElement('script');
    element.src = url;
    if (module) element.type = 'module';
    element.onload = () => {
      if (!('onload' in parameters)) ready();
    };
    element.onerror = () => {
      clearTimeout(late);
      gone();
    };
    window.limiterReady = ready;
    document.head.append(element);
  };

  const rendering = (api, more) => () => {
    clearTimeout(late);
    const id = window[api].render(widget, {
      sitekey: siteKey,
      theme,
      callback: solved,
      'error-callback': away,
      ...more,
    });
    reset = () => window[api].reset(id);
  };

  const providers = {
    turnstile: () =>
      load(
        { render: 'explicit', onload: 'limiterReady' },
        rendering('turnstile', { action, language: lang }),
      ),
    hcaptcha: () =>
      load(
        { render: 'explicit', onload: 'limiterReady', hl: lang },
        rendering('hcaptcha', {}),
      ),
    'recaptcha-v3': () =>
      load({ render: siteKey, hl: lang }, () =>
        window.grecaptcha.ready(() => {
          clearTimeout(late);
          window.grecaptcha.execute(siteKey, { action }).then(solved, away);
        }),
      ),
    'friendly-captcha': () => {
      // The script finds it by its class, and tells it what happens.
      Object.assign(widget.dataset, { sitekey: siteKey, lang, theme, start: 'auto' });
      widget.classList.add('frc-captcha');
      widget.addEventListener('frc:widget.complete', ({ detail }) => solved(detail.response));
      widget.addEventListener('frc:widget.error', away);
      load({}, () => clearTimeout(late), true);
    },
  };
  providers[provider]();
  return { again: () => reset() };
}

