// The task of a page that computes: a worker looks for the number.
'use strict';

function limiterTask(page, { solved, failed }) {
  const { seed } = page.dataset;
  const bits = Number(page.dataset.bits);
  const bar = page.querySelector('progress');
  const source = document.getElementById('solver').textContent;
  const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  const worker = new Worker(url);
  worker.onerror = failed;
  worker.onmessage = ({ data }) => {
    if (data.number === undefined) {
      // How likely it is that it would be done by now.
      bar.value = 1 - Math.exp(-data.tried / 2 ** bits);
      return;
    }
    bar.value = 1;
    worker.terminate();
    solved(data.number);
  };
  worker.postMessage({ seed, bits });
  return { again: failed };
}

