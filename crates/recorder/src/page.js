// Shows the newest state of the recording, and asks for it again every second until the recording ends.
const element = (id) => document.getElementById(id);

async function update() {
  const { deployment, numbers, status, ended } = await (await fetch("status")).json();
  const chart = new Image();
  chart.alt = document.title = `Scaling of ${deployment}`;
  chart.src = `autoscale.svg?${Date.now()}`;
  // The old one is shown until the new one is there.
  await chart.decode();
  const report = await (await fetch("report.md")).text();
  const parts = numbers.trim().split(/, |  /).map((part) => {
    const span = document.createElement("span");
    span.textContent = part;
    return span;
  });
  element("numbers").replaceChildren(...parts);
  element("status").textContent = status;
  element("chart").replaceChildren(chart);
  // The chart has the title.
  element("report").textContent = report.replace(/^## .*\n+/, "");
  return ended;
}

async function follow() {
  for (let ended = false; !ended;) {
    try {
      ended = await update();
    } catch {
      element("status").textContent = "The recorder cannot be reached";
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

follow();
