// The opacity is the visitor's: it stays as it is when another explanation comes.
let opacity = 80;
const show = () => {
  element.style.setProperty('--opacity', opacity / 100);
  const slider = element.querySelector('input[type=range]');
  if (slider) slider.value = opacity;
};
element.addEventListener('input', (event) => {
  opacity = Number(event.target.value);
  show();
});
watch('value', show);
