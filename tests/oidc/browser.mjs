// The user, in headless Chromium (Debian's package): signs in at the pages of oidc-provider and agrees.
//   node browser.mjs AUTHORIZATION_URL
// Prints where that ended, and what is written there. Its authority is nobody's whom the browser knows.

import puppeteer from 'puppeteer-core';

const browser = await puppeteer.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox'], // it refuses root otherwise
  acceptInsecureCerts: true,
  timeout: 120_000,
  protocolTimeout: 120_000,
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(process.argv[2], { waitUntil: 'domcontentloaded' });
  await (await page.waitForSelector('input[name=login]')).type('alice');
  await (await page.waitForSelector('input[name=password]')).type('password');
  await submit();
  await page.waitForSelector('input[name=prompt][value=consent]');
  await submit();
  console.log(page.url());
  console.log(await page.evaluate(() => document.body.innerText));

  /** The next page is there when this returns. */
  async function submit() {
    await Promise.all([page.waitForNavigation({ waitUntil: 'domcontentloaded' }), page.click('button[type=submit]')]);
  }
} finally {
  await browser.close();
}
