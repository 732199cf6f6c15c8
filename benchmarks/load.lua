-- wrk plays the requests of a file, one a line: method, path, body, separated by tabs.
-- Arguments: file, the status that is right, "once" when no request may be sent twice.
-- Prints one line of JSON at the end.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(arguments)
   played, wrong, exhausted = 0, 0, 0
   requests = {}
   right = tonumber(arguments[2])
   once = arguments[3] == "once"
   for line in io.lines(arguments[1]) do
      local method, path, body = line:match("^(%u+)\t(%S+)\t(.*)$")
      if body ~= "" then
         wrk.headers["Content-Type"] = "application/json"
         table.insert(requests, wrk.format(method, path, nil, body))
      else
         table.insert(requests, wrk.format(method, path))
      end
   end
end

function request()
   if played == #requests then
      if once then exhausted = exhausted + 1 end
      played = 0
   end
   played = played + 1
   return requests[played]
end

function response(status)
   if status ~= right then wrong = wrong + 1 end
end

function done(summary, latency)
   local wrong, exhausted = 0, 0
   for _, thread in ipairs(threads) do
      wrong = wrong + thread:get("wrong")
      exhausted = exhausted + thread:get("exhausted")
   end
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"seconds":%.6f,"p50":%.3f,"p99":%.3f,"wrong":%d,"broken":%d,"exhausted":%d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      wrong, errors.connect + errors.read + errors.write + errors.timeout, exhausted))
end
