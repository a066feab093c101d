// Opens the reference page in the system's Chromium as a person would, and prints as one JSON object
// what it shows, whom it asks, and what the browser has against it.
import { execFileSync } from "node:child_process";
import { chromium } from "playwright-core";

const { AUDIT_URL, AUDIT_API_KEY, SCREENSHOTS } = process.env;
const executablePath = execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
const browser = await chromium.launch({ executablePath });
const page = await browser.newPage({ viewport: { width: 1280, height: 1600 } });

const [complaints, asked] = [[], new Set()];
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type())) complaints.push(message.text());
});
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("requestfailed", (request) => complaints.push(`${request.url()} ${request.failure()?.errorText}`));
page.on("request", (request) => {
  const url = new URL(request.url());
  if (url.protocol !== "data:") asked.add(url.origin);
});
await page.exposeFunction("violated", (what) => complaints.push(what));
await page.addInitScript(() => {
  addEventListener("securitypolicyviolation", (event) => {
    globalThis.violated(`${event.violatedDirective} ${event.blockedURI}`);
  });
});

await page.goto(`${AUDIT_URL}/docs`);
await page.locator(".opblock").first().waitFor();
const shown = await page
  .locator(".opblock")
  .evaluateAll((blocks) =>
    blocks.map((block) => [
      block.querySelector(".opblock-summary-method").textContent,
      block.querySelector(".opblock-summary-path").dataset.path,
      block.id,
    ]),
  );
complaints.push(...(await page.locator(".errors-wrapper").allInnerTexts()));
await page.screenshot({ path: `${SCREENSHOTS}/page.png` });

await page.locator(".auth-wrapper .authorize").first().click();
const dialog = page.locator(".modal-ux");
await dialog.locator("input").first().fill(AUDIT_API_KEY);
await dialog.locator(".auth-btn-wrapper .authorize").first().click();
await dialog.locator(".btn-done").first().click();

/** What an operation answers as the page fills it in. */
async function tried(id) {
  const operation = page.locator(`[id$=-${id}]`);
  await operation.locator(".opblock-summary-control").click();
  await operation.locator(".try-out__btn").click();
  await operation.locator(".execute").click();
  const answer = operation.locator(".live-responses-table .response").first();
  await answer.waitFor();
  const status = await answer.locator(".response-col_status").innerText();
  const body = await answer.locator(".response-col_description pre").first().innerText();
  await operation.screenshot({ path: `${SCREENSHOTS}/${id}.png` });
  return { status: parseInt(status), body };
}
const ids = ["list_event_types", "list_audit_logs", "query_audit_logs"];
const answers = [];
for (const id of ids) answers.push(await tried(id));

await browser.close();

console.log(JSON.stringify({ shown, complaints, asked: [...asked], answers }));
