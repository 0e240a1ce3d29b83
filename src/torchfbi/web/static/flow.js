// All layers are in the page; one is shown. Playing goes from the class to the pixels once.
let timer = null;
const layers = () => [...element.querySelectorAll('section[data-layer]')];
const slider = () => element.querySelector('.layer');

const show = (number) => {
  for (const one of element.querySelectorAll('[data-layer]')) {
    const now = Number(one.dataset.layer) === number;
    if (one.tagName === 'SECTION') one.hidden = !now;
    else one.classList.toggle('now', now);
  }
  slider().value = number;
  slider().setAttribute('aria-valuetext', layers()[number].getAttribute('aria-label'));
};
const stop = () => {
  clearInterval(timer);
  timer = null;
  const button = element.querySelector('.play');
  if (button) button.textContent = '▶ Play';
};
const play = () => {
  const last = layers().length - 1;
  if (Number(slider().value) === last) show(0);
  element.querySelector('.play').textContent = '❚❚ Pause';
  timer = setInterval(() => {
    const next = Number(slider()?.value ?? last) + 1;
    if (next > last) stop();
    else show(next);
  }, 450);
};

element.addEventListener('input', (event) => {
  if (!event.target.matches('.layer')) return;
  stop();
  show(Number(event.target.value));
});
element.addEventListener('click', (event) => {
  if (event.target.closest('.play')) {
    if (timer) stop();
    else play();
  }
  const bar = event.target.closest('.fbi-density [data-layer]');
  if (bar) {
    stop();
    show(Number(bar.dataset.layer));
  }
});
watch('value', stop);
