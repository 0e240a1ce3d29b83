element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-target]');
  if (!button) return;
  for (const one of element.querySelectorAll('[data-target]')) {
    one.setAttribute('aria-pressed', String(one === button));
  }
  trigger('ask', {number: Number(button.dataset.target)});
});
