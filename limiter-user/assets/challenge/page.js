// The page of a challenge: has its task done, sends what came of it, and goes on.
'use strict';

(() => {
  // Who comes back so often within so long is not sent round once more.
  const ROUNDS = 3;
  const WITHIN_MS = 10 * 60 * 1000;

  const page = document.getElementById('challenge');
  const { token, path } = page.dataset;
  const resend = page.dataset.resend === 'true';
  let task;

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

  const send = async (solution) => {
    show('sending');
    const headers = { 'X-Limiter-Solution': `${token}:${solution}` };
    const answer = await fetch(path, {
      method: 'POST',
      headers,
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
    });
    const said = answer.ok ? {} : await answer.json().catch(() => ({}));
    if (answer.ok) {
      note();
      if (resend) show('resend');
      else location.reload();
    } else if (answer.status === 409 || answer.status === 410) {
      // Another puzzle is needed.
      note();
      if (resend) show('failed');
      else location.reload();
    } else if (said.challenge_error === 'wrong' && solution !== page.dataset.unloaded) {
      show('wrong');
      page.querySelector('#anew').focus();
    } else if (['wrong', 'away'].includes(said.challenge_error)) {
      show('away');
    } else {
      show('failed');
    }
  };

  const begin = () => {
    show('working');
    const failed = () => show('failed');
    try {
      task = limiterTask(page, {
        solved: (solution) => send(solution).catch(failed),
        failed,
        away: () => show('away'),
      });
    } catch {
      failed();
    }
  };

  page.querySelector('#once-more').addEventListener('click', () => {
    forget();
    begin();
  });
  page.querySelector('#anew').addEventListener('click', () => {
    show('working');
    task.again();
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
