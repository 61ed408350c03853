// The page of a challenge: has the work done in a worker, sends the solution, and goes on.
'use strict';

(() => {
  // Who comes back so often within so long is not sent round once more.
  const ROUNDS = 3;
  const WITHIN_MS = 10 * 60 * 1000;

  const page = document.getElementById('challenge');
  const bar = page.querySelector('progress');
  const { token, seed, path } = page.dataset;
  const bits = Number(page.dataset.bits);
  const resend = page.dataset.resend === 'true';

  const show = (state) => {
    for (const part of page.querySelectorAll('[data-state]')) {
      part.hidden = !part.dataset.state.split(' ').includes(state);
    }
  };

  /** When challenges were solved here of late; nothing where the browser keeps nothing. */
  const rounds = () => {
    try {
      const kept = JSON.parse(sessionStorage.getItem('limiter') || '[]');
      return kept.filter((time) => time > Date.now() - WITHIN_MS);
    } catch {
      return [];
    }
  };

  const note = () => {
    try {
      sessionStorage.setItem('limiter', JSON.stringify([...rounds(), Date.now()]));
    } catch {
      // Then the browser keeps no cookies either, which is looked at below.
    }
  };

  const forget = () => {
    try {
      sessionStorage.removeItem('limiter');
    } catch {
      // There is nothing to forget.
    }
  };

  const send = async (number) => {
    show('sending');
    const headers = { 'X-Limiter-Solution': `${token}:${number}` };
    const answer = await fetch(path, {
      method: 'POST',
      headers,
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
    });
    if (answer.ok) {
      note();
      if (resend) show('resend');
      else location.reload();
    } else if (answer.status === 409 || answer.status === 410) {
      // Another puzzle is needed.
      note();
      if (resend) show('failed');
      else location.reload();
    } else {
      show('failed');
    }
  };

  const work = () => {
    show('working');
    const source = document.getElementById('solver').textContent;
    const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
    const worker = new Worker(url);
    worker.onerror = () => show('failed');
    worker.onmessage = ({ data }) => {
      if (data.number === undefined) {
        // How likely it is that it would be done by now.
        bar.value = 1 - Math.exp(-data.tried / 2 ** bits);
        return;
      }
      bar.value = 1;
      worker.terminate();
      send(data.number).catch(() => show('failed'));
    };
    worker.postMessage({ seed, bits });
  };

  const begin = () => {
    try {
      work();
    } catch {
      show('failed');
    }
  };

  page.querySelector('#once-more').addEventListener('click', () => {
    forget();
    begin();
  });
  // Of what was sent by a form the browser asks whether to send it again.
  for (const button of ['#reload', '#send-again']) {
    page.querySelector(button).addEventListener('click', () => location.reload());
  }
  page.querySelector('#back').addEventListener('click', () => {
    if (history.length > 1) history.back();
    else location.assign(location.pathname + location.search);
  });

  if (!navigator.cookieEnabled) show('cookies');
  else if (rounds().length >= ROUNDS) show('again');
  else begin();
})();
