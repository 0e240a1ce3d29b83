// A photo by click, drop or paste: sent as it is, and answered with a token or with what is wrong.
const say = (text, bad) => {
  const line = element.querySelector('.said');
  line.textContent = text;
  line.classList.toggle('bad', Boolean(bad));
};

const send = async (file) => {
  const name = file.name || 'pasted.png';
  if (file.size > props.most) {
    say(`${name} has ${(file.size / 2 ** 20).toFixed(1)} MiB, this server takes up to ` +
        `${Math.floor(props.most / 2 ** 20)} MiB. Scale it down.`, true);
    return;
  }
  say(`Sending ${name} …`);
  try {
    const answer = await fetch(`photo?name=${encodeURIComponent(name)}`, {method: 'POST', body: file});
    const said = await answer.json();
    if (!answer.ok) { say(said.error, true); return; }
    say(name);
    trigger('photo', {token: said.photo});
  } catch (error) {
    say('The server cannot be reached. Is it still running?', true);
  }
};

element.addEventListener('change', (event) => {
  if (event.target.type !== 'file' || !event.target.files.length) return;
  send(event.target.files[0]);
  event.target.value = '';
});
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-example]');
  if (!button) return;
  say(button.dataset.example);
  trigger('example', {name: button.dataset.example});
});
for (const kind of ['dragover', 'dragleave', 'drop']) {
  element.addEventListener(kind, (event) => {
    event.preventDefault();
    element.querySelector('.area').classList.toggle('over', kind === 'dragover');
    if (kind === 'drop' && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
}
document.addEventListener('paste', (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith('image/'));
  if (file) send(file);
});
