// A picture of what a webcam sees.

import { $ } from "./parts.js";

export const hasWebcam = Boolean(navigator.mediaDevices?.getUserMedia); // of this machine, or by HTTPS

/** Show what the camera sees until a picture is taken, which `take` gets, or the dialog is closed. */
export async function showWebcam(take) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: true });
  $("live").srcObject = stream;
  await new Promise((ready) => ($("live").onloadeddata = ready));
  $("webcam").onclose = () => stream.getTracks().forEach((track) => track.stop());
  $("snap").onclick = async () => {
    const { videoWidth, videoHeight } = $("live");
    const canvas = new OffscreenCanvas(videoWidth, videoHeight);
    canvas.getContext("2d").drawImage($("live"), 0, 0);
    $("webcam").close();
    take(new File([await canvas.convertToBlob({ type: "image/png" })], "camera.png"));
  };
  $("webcam").showModal();
}
